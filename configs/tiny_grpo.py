"""GRPO of the tiny policy with live search in the training world.

mmsearch grpo --config configs/tiny_grpo.py --config.checkpoint=runs/sft/policies/sft --workdir runs/grpo
"""

import ml_collections

from configs import tiny


def get_config() -> ml_collections.ConfigDict:
    """GRPO from an SFT policy."""
    config = tiny.base(checkpoint="runs/sft/policies/sft")
    config.grpo = ml_collections.ConfigDict(
        {
            # Rows of your own (needs tools.url); empty: the training world's.
            "rows": "",
            "num_steps": 32,
            "prompts_per_step": 12,
            "group_size": 8,
            # Further trajectories of a group, cut off once it is full; rounds of prompts for uniform groups (docs/training.md).
            "oversample": 0,
            "sampling_rounds": 1,
            "updates_per_batch": 1,
            "epochs": 1,
            "overlap": False,
            # Below 1 a trajectory fails less by mere chance, and its reward tells more of what greedy decoding gets wrong.
            "temperature": 0.8,
            # As in DeepMMSearch-R1 (sec. 3.2): no division by the group's standard deviation.
            "normalise_std": False,
            "min_group": 2,
            "skip_uniform": True,
            "save_groups": 1,
            "freeze": ("vision",),
            "batch": {"rows": 12, "length": 576, "images": 12, "patches": 192},
            # The paper's KL weight is 0.001, at a learning rate of 2e-6: at a tiny policy's rate the noise of the advantages
            # needs a stronger pull back to the SFT policy.
            "loss": {
                "clip_low": 0.2,
                "clip_high": 0.2,
                "kl_coef": 0.1,
                "kl_estimator": "k3",
                "aggregation": "sequence",
                "constant_length": 1024,
                "ratio": "token",
                "importance_cap": 0.0,
            },
            # R = (1 - l) s + l s_fmt with l = 0.1; no search penalty.
            "reward": {"format_weight": 0.1, "search_penalty": 0.0, "match": "exact", "overlong_buffer": 0},
            # Any OpenAI-compatible endpoint, for reward.match "judge" or "exact_or_judge".
            "judge": {
                "url": "",
                "model": "",
                "key_env": "JUDGE_API_KEY",
                "deadline_s": 60.0,
                "max_concurrency": 32,
                "max_tokens": 512,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 4e-4,
                "warmup_steps": 2,
                "decay": "cosine",
                "final_fraction": 0.1,
                "weight_decay": 0.0,
                "b2": 0.98,
            },
        }
    )
    return config
