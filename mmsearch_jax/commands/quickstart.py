"""`mmsearch quickstart`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.settings import Section

_SMOKE_WORKDIR = Path("runs/smoke")


def _settings() -> type[Section]:
    from mmsearch_jax.settings.commands import QuickstartSettings

    return QuickstartSettings


class _Smoke(argparse.Action):
    """Chooses the tiny budgets, and a work directory of their own unless one is named."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        namespace.config_argument = "smoke"
        # argparse puts the default itself into the namespace, so a named directory is another object.
        if namespace.workdir is parser.get_default("workdir"):
            namespace.workdir = _SMOKE_WORKDIR


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--smoke",
        action=_Smoke,
        nargs=0,
        dest="config_argument",
        default="",
        help=f"tiny budgets: the same path in a minute and a half (default work directory: {_SMOKE_WORKDIR})",
    )


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.jobs.quickstart import run_quickstart

    run_quickstart(options.settings, options.workdir)


COMMAND = Command(
    "quickstart",
    "Runs everything on one CPU: SFT, GRPO with live search, evaluation in four modes, report.\n"
    "Writes quickstart.json, eval/*/summary.json and report.html to the work directory. The same command resumes: finished\n"
    "stages are not repeated, and SFT and GRPO continue from their last checkpoint.",
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
    resumes="{checkpoints}",
    exclusive=True,
)
