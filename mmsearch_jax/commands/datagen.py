"""`mmsearch datagen`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.datagen import DatagenSettings

    return DatagenSettings


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.jobs.datagen import ROWS, run_datagen

    sheet = run_datagen(options.settings, options.workdir)
    for outcome, count in sheet["stages"].items():
        print(f"{count:>8} {outcome}")
    print(f"{sheet['stopped']}\n{sheet['set']['rows']} rows: {options.workdir / ROWS}, with datasheet.md next to them")


COMMAND = Command(
    "datagen",
    "Makes conversations with search from questions with answers: a teacher writes the turns, the live tools answer.\n"
    "Writes rows.array_record, datasheet.md and datasheet.json; the same command resumes after a kill.",
    _run,
    (
        "mmsearch datagen --config.seeds.path=infoseek.array_record --config.tools.url=http://localhost:8765 \\\n"
        "      --config.teacher.url=http://localhost:8000/v1 --config.teacher.model=NAME \\\n"
        "      --config.tokenizer=runs/sft/policies/sft",
    ),
    settings=_settings,
    config="datagen.py",
    workdir=True,
    resumes="its journal",
    exclusive=True,
)
