"""The row: one question about one image, with its gold answers and (for SFT) its conversation.

Rows live in a `rows.jsonl` beside their images. This module knows how a row is spelt on disk and what makes one
unusable; it knows nothing of tokens, tools or worlds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmsearch_jax.errors import DataError

KINDS = ("visual", "whole_image", "crop", "two_hop")


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an entity stands in the image: gold, used to score grounding and never shown to policy or server."""

    entity: str
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive."""


@dataclasses.dataclass(frozen=True)
class ConversationTurn:
    """One turn of an SFT conversation: what the policy writes, and what came back (None after the answer)."""

    text: str
    observation: str | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One question about one image.

    `answers` lists the gold answer first, then its aliases. `image` is a path, made absolute by `read_rows`.
    `target` is the placement that the question is about (an index into `placements`), or None. `meta` says how the
    question was made (form, attribute, ...); neither policy nor server sees it.
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...]
    kind: str
    search_required: bool
    placements: tuple[Placement, ...] = ()
    target: int | None = None
    meta: dict[str, str] = dataclasses.field(default_factory=dict)
    turns: tuple[ConversationTurn, ...] = ()

    @property
    def num_entities(self) -> int:
        """How many entities stand in the image."""
        return len(self.placements)


def read_rows(path: str | Path) -> list[Row]:
    """Reads `rows.jsonl` (or the folder that holds it).

    Raises:
      DataError: the file is missing, or a line is not a row; names file, line and field.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "rows.jsonl"
    if not path.is_file():
        raise DataError(f"no rows at {path}: give a rows.jsonl file or a folder that holds one")
    with path.open(encoding="utf-8") as lines:
        return [_parse_row(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def write_rows(rows: Iterable[Row], path: str | Path) -> None:
    """Writes rows as JSON lines; image paths inside the file's folder are stored relative to it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            record = dataclasses.asdict(row)
            image = Path(row.image)
            if image.is_absolute() and image.is_relative_to(path.parent.resolve()):
                record["image"] = str(image.relative_to(path.parent.resolve()))
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def _parse_row(line: str, path: Path, number: int) -> Row:
    where = f"{path}, line {number}"
    try:
        record: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); each line must be one row") from error
    for field in ("id", "image", "question", "answers", "kind", "search_required"):
        if field not in record:
            raise DataError(f"{where}: the row has no '{field}'")
    if record["kind"] not in KINDS:
        raise DataError(f"{where}: unknown kind '{record['kind']}', expected one of {', '.join(KINDS)}")
    if not record["answers"] or not all(isinstance(answer, str) and answer for answer in record["answers"]):
        raise DataError(f"{where}: 'answers' must list at least one non-empty string")
    return Row(
        id=str(record["id"]),
        image=str((path.parent / record["image"]).resolve()),
        question=record["question"],
        answers=tuple(record["answers"]),
        kind=record["kind"],
        search_required=bool(record["search_required"]),
        placements=tuple(Placement(p["entity"], tuple(p["box"])) for p in record.get("placements", ())),
        target=record.get("target"),
        meta=dict(record.get("meta", {})),
        turns=tuple(ConversationTurn(t["text"], t.get("observation")) for t in record.get("turns", ())),
    )
