"""The command line of every benchmark, its table, and the table as JSON. Knows nothing of JAX."""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmsearch_jax.core.command_line import Parser


class Measured(NamedTuple):
    """A row: the measured value, its unit, the aim, and whether the value meets it.

    `spread` is the smallest and the largest value of repeated measurements; `why` is the reason for a row that falls short.
    """

    value: float
    unit: str
    aim: str
    holds: bool
    spread: tuple[float, float] | None = None
    why: str = ""


def command_line(
    description: str, quick: str = "", *, within: str = "a minute", sizes: bool = False
) -> argparse.ArgumentParser:
    """A parser with --json, with --quick if `quick` says what is left out, and with `sizes` also --model and --alone."""
    parser = Parser(description=description)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write {row: {value, unit, aim, holds, spread, why}} there"
    )
    if quick:
        parser.add_argument("--quick", action="store_true", help=f"ends within {within}: {quick}")
    if sizes:
        parser.add_argument(
            "--model",
            choices=("small", "3b", "7b"),
            default="small",
            help="3b, 7b: for a GPU, in bf16, each side with its own random weights (default: %(default)s)",
        )
        parser.add_argument("--alone", action="store_true", help="without the peer (if torch is not installed)")
    return parser


def faster(ours: Sequence[float], theirs: Sequence[float], at_least: float, why: str = "") -> Measured:
    """The ratio of speeds, ours over theirs, from the seconds of repeats of equal work.

    The value is the ratio of the geometric means, the spread that of the extremes. On a machine that slows down for minutes,
    the median of a few repeats reflects only one of the two speeds.
    """
    ratio = statistics.geometric_mean(theirs) / statistics.geometric_mean(ours)
    spread = min(theirs) / max(ours), max(theirs) / min(ours)
    return Measured(ratio, "x", f"at least {at_least:g}", ratio >= at_least, spread, why)


def report(rows: dict[str, Measured], file: Path | None) -> None:
    """Prints the rows, and writes {row: {value, unit, aim, holds, spread, why}} if a file is named."""
    width = max(map(len, rows))
    print(f"{'row':<{width}} {'value':>8} {'unit':<4} {'aim':<14} holds  spread")
    for name, row in rows.items():
        spread = "" if row.spread is None else f"{row.spread[0]:.2f} to {row.spread[1]:.2f}"
        holds = "yes" if row.holds else "NO"
        print(f"{name:<{width}} {row.value:>8.2f} {row.unit:<4} {row.aim:<14} {holds:<6} {spread}".rstrip())
    if file is not None:
        write_json(file, rows)


def write_json(path: Path, rows: dict[str, Measured]) -> None:
    """Writes {row: {value, unit, aim, holds, spread, why}}."""
    path.write_text(json.dumps({name: row._asdict() for name, row in rows.items()}, indent=1) + "\n", encoding="utf-8")
