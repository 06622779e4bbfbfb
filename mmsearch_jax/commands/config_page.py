"""Writes docs/config.md, the list of all settings: python -m mmsearch_jax.commands.config_page > docs/config.md."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

from mmsearch_jax.commands.main import COMMANDS
from mmsearch_jax.core.settings import Bounds, Section, doc_of, kind, leaves
from tools_server.settings.server import ServerSettings

_HEAD = """\
# Settings

Every setting of every command. `--config.PATH=VALUE` sets one on the command line; a config file (`configs/*.py`) sets many.
The defaults here are the paper's recipe for a 7B; the bundled configs contain the values that differ for a size or a topology.
`mmsearch COMMAND --print-config` prints the values that a command line resolves to, each with its source: default, file or
command line. The whole tree is checked before anything is loaded, downloaded, started or compiled.

`python -m mmsearch_jax.commands.config_page > docs/config.md` writes this page."""
Row = tuple[str, str, str, str]


def page() -> str:
    """The page as Markdown."""
    parts, first_of = [_HEAD], dict[tuple[str, tuple[str, ...]], tuple[str, tuple[Row, ...]]]()
    for (section, rows), commands in _sections().items():
        title = f"`{section}`" if section else f"At the top of {', '.join(commands)}"
        told = f"Used by {', '.join(f'`mmsearch {name}`' for name in commands)}."
        # Records of one mapping (search providers, courses) differ in a few values only.
        alike = (section.rpartition(".")[0], tuple(name for name, *_ in rows))
        if "." in section and alike in first_of:
            first, others = first_of[alike]
            rows = tuple(row for row in rows if row not in others)
            told += f" Same as `{first}`" + (", except:" if rows else ".")
        else:
            first_of[alike] = (section, rows)
        lines = [f"| `{name}` | {default} | {values} | {doc} |" for name, default, values, doc in rows]
        table = ["", "| setting | default | takes | |", "| --- | --- | --- | --- |", *lines] if lines else []
        parts.append("\n".join([f"## {title}", "", told, *table]))
    return "\n\n".join(parts) + "\n"


def _sections() -> dict[tuple[str, tuple[Row, ...]], list[str]]:
    """The rows of each section, and the commands that use it; a section with other defaults is listed separately."""
    found: dict[tuple[str, tuple[Row, ...]], list[str]] = {}
    for name, tree in _trees():
        rows: dict[str, list[Row]] = collections.defaultdict(list)
        for path, field, hint, value in leaves(tree):
            section, _, leaf = path.rpartition(".")
            rows[section].append((leaf, _shown(value), _takes(hint, field.metadata["bounds"]), _escaped(doc_of(field))))
        for section, listed in rows.items():
            found.setdefault((section, tuple(listed)), []).append(name)
    return found


def _trees() -> Iterator[tuple[str, Section]]:
    for name, command in COMMANDS.items():
        # `ask` has the settings of `eval`.
        if command.settings is not None and name != "ask":
            yield name, command.settings()()
    yield "serve-tools", ServerSettings()


def _shown(value: Any) -> str:
    return f"`{_escaped(repr(value))}`"


def _takes(hint: Any, bounds: Bounds) -> str:
    if bounds.one_of:
        return _escaped(", ".join(word or "''" for word in bounds.one_of))
    limits = (
        (bounds.at_least, "at least"), (bounds.above, "above"), (bounds.at_most, "at most"), (bounds.below, "below"),
    )  # fmt: skip
    return ", ".join([kind(hint), *(f"{word} {limit:g}" for limit, word in limits if limit is not None)])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
