"""`mmsearch pretrain`: makes the tiny base from random parameters."""

from __future__ import annotations

from pathlib import Path

from mmsearch_jax.jobs import identities
from mmsearch_jax.miniworld import pretraining
from mmsearch_jax.settings.world import PretrainSettings


def run_pretrain(settings: PretrainSettings, workdir: Path) -> Path:
    """Makes the tiny base; returns its folder."""
    out = Path(settings.out)
    pretraining.make_base(settings, out, workdir, identities.pretraining(settings))
    return out
