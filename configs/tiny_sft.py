"""SFT of the tiny base for tool use, on the scripted teacher's conversations in the training world.

mmsearch sft --config configs/tiny_sft.py --workdir runs/sft
"""

import ml_collections

from mmsearch_jax.recipes import tiny
from mmsearch_jax.settings.commands import SFTSettings


def get_config() -> ml_collections.ConfigDict:
    """SFT of the tiny base."""
    return tiny.base(SFTSettings())
