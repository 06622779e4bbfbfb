"""Describes a generated set as JSON and as a Markdown page: counts by stage, categories, turns, tools, settings."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.protocol import ImageSearch, TextSearch, parse_turn
from mmsearch_jax.data.rows import Row


def describe(rows: Iterable[Row]) -> dict[str, Any]:
    """Statistics over the rows of a set."""
    categories, turns, tools, required = (collections.Counter[str]() for _ in range(4))
    for row in rows:
        used = {tool for turn in row.turns if (tool := _tool(turn.text))}
        tools[" and ".join(sorted(used)) or "none"] += 1
        categories[row.category] += 1
        turns[str(len(row.turns))] += 1
        required["search required" if row.search_required else "search free"] += 1
    counted = {"categories": categories, "turns": turns, "tools": tools}
    return {
        "rows": required.total(),
        **dict(required),
        **{name: dict(sorted(counts.items())) for name, counts in counted.items()},
    }


def write(folder: Path, sheet: Mapping[str, Any]) -> None:
    """Writes datasheet.json and datasheet.md."""
    (folder / "datasheet.json").write_text(
        json.dumps(sheet, indent=2, ensure_ascii=False, default=list) + "\n", encoding="utf-8"
    )
    lines = ["# Datasheet", ""]
    for title, values in sheet.items():
        lines += [f"## {title}", ""]
        if isinstance(values, Mapping):
            lines += ["| | |", "| --- | --- |", *(f"| {key} | {_cell(value)} |" for key, value in values.items()), ""]
        else:
            lines += [_cell(values), ""]
    (folder / "datasheet.md").write_text("\n".join(lines), encoding="utf-8")


def _tool(text: str) -> str | None:
    match parse_turn(text).action:
        case TextSearch():
            return "text search"
        case ImageSearch(None):
            return "image search"
        case ImageSearch():
            return "cropped image search"
    return None


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_cell(inner)}" for key, inner in value.items())
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return " ".join(text.replace("|", "\\|").split())
