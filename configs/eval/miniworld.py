"""Evaluates a policy on the mini-world's real half: flags, monuments and facts that no training saw.

mmsearch eval --config configs/eval/miniworld.py --checkpoint runs/grpo/policies/grpo --workdir runs/eval
"""

import ml_collections

from configs import tiny
from configs.eval import settings


def get_config() -> ml_collections.ConfigDict:
    """Evaluation on the real mini-world."""
    config = tiny.base()
    config.base = ""
    config.update(settings.sections())
    # A world of its own: whatever is asked anew in the same folder is asked of what is there now.
    config.eval.if_changed = "replace"
    return config
