"""`mmsearch quickstart`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.commands import QuickstartSettings

    return QuickstartSettings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--smoke",
        action="store_const",
        const="smoke",
        default="",
        dest="config_argument",
        help="tiny budgets: the same path in a minute and a half",
    )


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.jobs.quickstart import run_quickstart

    run_quickstart(options.settings, options.workdir)


COMMAND = Command(
    "quickstart",
    "Runs everything on one CPU: SFT, GRPO with live search, evaluation in four modes, report.\n"
    "Writes quickstart.json, eval/*/summary.json and report.html to the work directory.",
    _run,
    (
        "mmsearch quickstart",
        "mmsearch quickstart --smoke --workdir /tmp/smoke",
        "mmsearch quickstart --workdir runs/seed1 --config.seed=1",
    ),
    _add_arguments,
    _settings,
    config="quickstart.py",
    workdir=True,
    exclusive=True,
)
