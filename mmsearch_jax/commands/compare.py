"""`mmsearch compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch_jax.commands.command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, help="directory of a run, such as runs/eval/eval/sft")
    parser.add_argument("second", type=Path, help="directory of the run to compare with it")
    parser.add_argument("-o", "--out", type=Path, help="also write the figures as JSON")


def _run(options: argparse.Namespace) -> None:
    from rich.console import Console

    from mmsearch_jax.evaluation.compare import compare_runs
    from mmsearch_jax.evaluation.samples import write_json
    from mmsearch_jax.evaluation.terminal_tables import difference_table

    found = compare_runs(options.first, options.second)
    if options.out:
        write_json(options.out, found)
    Console().print(difference_table(found))


COMMAND = Command(
    "compare",
    "Compares two evaluations of the same questions: difference, interval, McNemar's test.\n"
    "Takes the directories of two benchmarks' runs, or of two runs over many.",
    _run,
    ("mmsearch compare runs/eval/eval/sft runs/eval/eval/grpo",),
    _add_arguments,
    inputs=("first", "second"),
)
