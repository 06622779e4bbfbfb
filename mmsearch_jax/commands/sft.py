"""`mmsearch sft`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command, add_profile
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.commands import SFTSettings

    return SFTSettings


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.core.staging import shown
    from mmsearch_jax.jobs.sft import run_sft

    print(f"policy: {shown(run_sft(options.settings, options.workdir))}")


COMMAND = Command(
    "sft",
    "Supervised fine-tuning on the teacher's conversations, made with the live tools.\n"
    "Writes policies/sft, metrics.jsonl, TensorBoard events and checkpoints to the work directory.",
    _run,
    (
        "mmsearch sft --workdir runs/sft",
        "mmsearch sft --workdir runs/short --config.sft.num_steps=50 --config.sft.optimizer.learning_rate=1e-3",
    ),
    add_profile,
    _settings,
    config="tiny_sft.py",
    workdir=True,
    processes=True,
    resumes="{checkpoints}",
    exclusive=True,
)
