"""GRPO of the tiny policy with live search in the training world.

mmsearch grpo --config configs/tiny_grpo.py --config.checkpoint=runs/sft/policies/sft --workdir runs/grpo
"""

import ml_collections

from configs import tiny


def get_config() -> ml_collections.ConfigDict:
    """GRPO from an SFT policy."""
    config = tiny.base(checkpoint="runs/sft/policies/sft")
    config.grpo = ml_collections.ConfigDict({
        "num_steps": 32,
        "prompts_per_step": 12,
        "group_size": 8,
        "updates_per_batch": 1,
        # Below 1 a trajectory fails less by mere chance, and its reward tells more of what greedy decoding gets wrong.
        "temperature": 0.8,
        # As in DeepMMSearch-R1 (sec. 3.2): no division by the group's standard deviation.
        "normalise_std": False,
        "min_group": 2,
        "skip_uniform": True,
        "freeze": ("vision",),
        "checkpoint_every": 0,
        "batch": {"rows": 12, "length": 576, "images": 12, "patches": 192},
        # The paper's KL weight is 0.001, at a learning rate of 2e-6: at a tiny policy's rate the noise of the advantages
        # needs a stronger pull back to the SFT policy.
        "loss": {"clip_low": 0.2, "clip_high": 0.2, "kl_coef": 0.1, "kl_estimator": "k3", "aggregation": "sequence"},
        # R = (1 - l) s + l s_fmt with l = 0.1; no search penalty.
        "reward": {"format_weight": 0.1, "search_penalty": 0.0},
        "optimizer": {"name": "adamw", "learning_rate": 4e-4, "warmup_steps": 2, "decay": "cosine", "final_fraction": 0.1,
                      "weight_decay": 0.0, "b2": 0.98},
    })  # fmt: skip
    return config
