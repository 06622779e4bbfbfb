"""Pretrains the tiny base from scratch, on a laptop's CPU.

mmsearch pretrain --config configs/tiny_pretrain.py --workdir runs/pretrain
"""

import ml_collections

from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.settings.world import PretrainSettings


def get_config() -> ml_collections.ConfigDict:
    """The recipe of the tiny base."""
    return as_config(PretrainSettings())
