"""`mmsearch grpo`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command, add_profile
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.commands import GRPOSettings

    return GRPOSettings


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.core.staging import shown
    from mmsearch_jax.jobs.grpo import run_grpo

    print(f"policy: {shown(run_grpo(options.settings, options.workdir))}")


COMMAND = Command(
    "grpo",
    "GRPO with live search, from an SFT policy.\n"
    "Writes policies/grpo, rollouts/, metrics.jsonl, TensorBoard events and checkpoints to the work directory.",
    _run,
    (
        "mmsearch grpo --workdir runs/grpo --config.checkpoint=runs/sft/policies/sft",
        "mmsearch grpo --workdir runs/frugal --config.grpo.reward.search_penalty=0.05",
    ),
    add_profile,
    _settings,
    config="tiny_grpo.py",
    workdir=True,
    processes=True,
    resumes="{checkpoints}",
    exclusive=True,
)
