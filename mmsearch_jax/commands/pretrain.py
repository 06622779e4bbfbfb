"""`mmsearch pretrain`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.world import PretrainSettings

    return PretrainSettings


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.jobs.pretrain import run_pretrain

    print(f"base policy: {run_pretrain(options.settings, options.workdir)}")


COMMAND = Command(
    "pretrain",
    "Makes the tiny base policy from random parameters.\nWrites a Hugging Face directory that transformers can also load.",
    _run,
    ("mmsearch pretrain --workdir runs/base --config.out=runs/base/policy",),
    settings=_settings,
    config="tiny_pretrain.py",
    workdir=True,
    resumes="{checkpoints}",
    exclusive=True,
)
