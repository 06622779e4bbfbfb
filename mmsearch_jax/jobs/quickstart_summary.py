"""What the quickstart prints at its end: the table, what its figures mean, the times, and the next commands."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.config_files import load
from mmsearch_jax.data.rows import Row
from mmsearch_jax.evaluation.terminal_tables import percent, print_table
from mmsearch_jax.settings.commands import QuickstartSettings

_WIDTH = 80


def print_summary(
    record: Mapping[str, Any], settings: QuickstartSettings, workdir: Path, report: Path, example: Row
) -> None:
    """Prints the end of a quickstart, at most 80 columns wide (except for commands and paths).

    Args:
      record: content of `quickstart.json`.
      example: a question about an image file, for the command `mmsearch ask`.
    """
    summaries = list(record["summaries"].values())
    print_table(summaries)
    ablation = next(iter(record["ablations"].values()))
    notes = [training_note(settings), crop_note(summaries[-1], ablation), time_note(record["seconds"])]
    for note in notes:
        print("\n" + textwrap.fill(note, _WIDTH))
    print(f"\nReport, to open in a browser: {report}\n\nNext:")
    for line in next_commands(workdir, example):
        print(f"  {line}")


def training_note(settings: QuickstartSettings) -> str:
    """How much training the figures stand for, and what to expect of it."""
    full = load(QuickstartSettings, bundled("configs/quickstart.py")).settings
    steps = f"{settings.sft.num_steps} SFT and {settings.grpo.num_steps} GRPO steps"
    if 2 * settings.sft.num_steps >= full.sft.num_steps:
        return f"SFT and GRPO are the tiny policy after {steps}; direct and rag are its untrained base."
    return (
        f"These figures are of {steps} on {settings.world.num_sft_rows} training questions (the whole quickstart makes "
        f"{full.sft.num_steps} and {full.grpo.num_steps} steps). After so few steps the policy does not yet write tool calls "
        "or answers: 0.0\u00a0% for sft and grpo is expected. This run shows that every stage works on this machine; "
        "`mmsearch quickstart` shows what the method learns."
    )


def crop_note(summary: Mapping[str, Any], ablation: Mapping[str, Any]) -> str:
    """What the crop search is worth: the trained policy with and without it."""
    crop, whole = summary["crop_3_or_more_entities"], ablation["crop_3_or_more_entities"]
    return (
        f"Crop questions in scenes of 3 or 4 pictures (n = {crop['n']}): {percent(crop['accuracy'])}\u00a0% with crop search, "
        f"{percent(whole['accuracy'])}\u00a0% if each crop search is replaced by a whole-image search (grpo_no_crop)."
    )


def time_note(seconds: Mapping[str, float]) -> str:
    """The time of each stage, and of all."""
    parts = [f"{name} {value:.0f} s" for name, value in seconds.items() if name != "total"]
    return f"Time: {', '.join(parts)}; together {seconds['total'] / 60:.1f} minutes."


def next_commands(workdir: Path, example: Row) -> Sequence[str]:
    """Commands that use what the quickstart left."""
    policy = shlex.quote(str(workdir / "policies" / "grpo"))
    commands = [
        f"mmsearch ask {shlex.quote(str(example.image))} {shlex.quote(example.question)} --config.checkpoint={policy}",
        f"mmsearch compare {shlex.quote(str(workdir / 'eval' / 'sft'))} {shlex.quote(str(workdir / 'eval' / 'grpo'))}",
        f"mmsearch serve --config.checkpoint={policy}",
    ]
    activate = Path(sys.executable).parent / "activate"
    if shutil.which("mmsearch") is None and activate.is_file():
        commands.insert(0, f"source {shlex.quote(str(activate))}")
    return commands
