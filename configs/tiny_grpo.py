"""GRPO of the tiny policy with live search in the training world.

mmsearch grpo --config configs/tiny_grpo.py --config.checkpoint=runs/sft/policies/sft --workdir runs/grpo
"""

import ml_collections

from mmsearch_jax.recipes import tiny
from mmsearch_jax.settings.commands import GRPOSettings


def get_config() -> ml_collections.ConfigDict:
    """GRPO from an SFT policy."""
    return tiny.base(GRPOSettings(), checkpoint="runs/sft/policies/sft")
