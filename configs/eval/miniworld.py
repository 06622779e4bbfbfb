"""Evaluates a policy on the real mini-world: flags, monuments and facts that are not in the training data.

mmsearch eval --config configs/eval/miniworld.py --checkpoint runs/grpo/policies/grpo --workdir runs/eval
"""

import ml_collections

from mmsearch_jax.recipes import tiny
from mmsearch_jax.settings.commands import EvaluationSettings


def get_config() -> ml_collections.ConfigDict:
    """Evaluation on the real mini-world."""
    config = tiny.base(EvaluationSettings())
    # The evaluation makes its own world, so a new one in the same directory replaces the old one.
    config.eval.if_changed = "replace"
    return config
