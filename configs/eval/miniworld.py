"""Evaluates a policy on the mini-world's real half: flags, monuments and facts that no training saw.

mmsearch eval --config configs/eval/miniworld.py --config.checkpoint=runs/grpo/policies/grpo --workdir runs/eval
"""

import ml_collections

from configs import tiny


def get_config() -> ml_collections.ConfigDict:
    """Evaluation on the real mini-world."""
    config = tiny.base()
    config.eval = ml_collections.ConfigDict({
        # Folder under <workdir>/eval.
        "name": "policy",
        # policy: tools by tags; prompted: the same with an untrained policy; direct: no tools; rag: fixed workflow.
        "mode": "policy",
        "allow_text": True, "allow_image": True, "allow_crop": True,
        "temperature": 0.0,
        # Rows to ask, in order; 0 asks all.
        "limit": 0,
    })  # fmt: skip
    return config
