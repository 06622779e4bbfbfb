"""The table that every benchmark prints, and its JSON form."""

import json
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """A row: what was measured, in which unit, what it should be, and whether it is."""

    value: float
    unit: str
    aim: str
    holds: bool


def report(rows: dict[str, Measured], file: Path | None) -> None:
    """Prints the rows, and writes {row: {value, unit, aim, holds}} if a file is named."""
    width = max(map(len, rows))
    print(f"{'row':<{width}} {'value':>8} {'unit':<4} {'aim':<14} holds")
    for name, row in rows.items():
        print(f"{name:<{width}} {row.value:>8.2f} {row.unit:<4} {row.aim:<14} {'yes' if row.holds else 'NO'}")
    if file is not None:
        write_json(file, rows)


def write_json(path: Path, rows: dict[str, Measured]) -> None:
    """Writes {row: {value, unit, aim, holds}}."""
    path.write_text(json.dumps({name: row._asdict() for name, row in rows.items()}, indent=1) + "\n", encoding="utf-8")
