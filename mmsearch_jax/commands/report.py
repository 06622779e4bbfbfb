"""`mmsearch report`."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from mmsearch_jax.commands.command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="work directories")
    parser.add_argument("-o", "--out", type=Path, help="file to write (default: report.html in the first directory)")
    parser.add_argument("--image-mib", type=int, default=14, help="MiB of images to embed (default: %(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=2_000_000, help="tokens to embed with origin and log-prob (default: %(default)s)"
    )


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.core.buckets import is_address
    from mmsearch_jax.core.staging import StagedDirectory, shown
    from mmsearch_jax.report.page import write_report
    from mmsearch_jax.report.viewer_data import PageBudget

    budget = PageBudget(image_bytes=options.image_mib << 20, tokens=options.tokens)
    with contextlib.ExitStack() as open_runs:
        runs = [open_runs.enter_context(StagedDirectory(run)).path if is_address(run) else run for run in options.runs]
        out = options.out or runs[0] / "report.html"
        print(f"report: {shown(write_report(runs, out, budget=budget))}")


COMMAND = Command(
    "report",
    "Writes one self-contained HTML page about one run or several.\n"
    "It contains tables, comparisons, tool use, learning curves and every trajectory with images, crops and results.",
    _run,
    ("mmsearch report runs/quickstart", "mmsearch report runs/sft runs/grpo -o report.html"),
    _add_arguments,
    inputs=("runs",),
)
