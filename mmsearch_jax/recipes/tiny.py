"""The tiny policy of the quickstart: fully trained in float32 on one CPU, with much shorter episodes than in the paper."""

from __future__ import annotations

import ml_collections

from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.settings.commands import GRPOSettings, LearnerSettings, PolicySettings, SFTSettings
from mmsearch_jax.settings.learning import TOY_WORLD

TINY_BASE = str(bundled("assets/tiny-base"))
# Short limits, since the policy must run on a laptop.
EPISODE = {
    "prompt_style": "short",
    "max_tool_calls": 4,
    "max_text_searches": 3,
    "max_turn_tokens": 96,
    "max_trajectory_tokens": 576,
    "observation_max_tokens": 72,
    "top_k_text": 2,
    "top_k_image": 2,
    "say_last_turn": False,
}
ENGINE = {"extend_rows": (16,), "extend_buckets": (128,), "length_buckets": (256,)}


def base(settings: PolicySettings, checkpoint: str = TINY_BASE) -> ml_collections.ConfigDict:
    """A command's tree for the tiny policy in the mini-world."""
    config = as_config(settings)
    config.update({"checkpoint": checkpoint, "dtype": "float32", "max_pixels": 0, "episode": EPISODE, "engine": ENGINE})
    # Empty: the command starts a server on a free port, with the world's corpus.
    config.tools.update({"url": "", "deadline_s": 30.0})
    if isinstance(settings, LearnerSettings):
        # A small policy needs all of its parameters trained; the paper trains LoRA of rank 8 (sec. 3.1).
        config.lora.rank = 0
        config.remat = "none"
        # A checkpoint takes a tenth of a second, and a step of GRPO several.
        config.run.checkpoint_every = 8
    if isinstance(settings, SFTSettings):
        config.sft.update({"num_steps": 132, "batch": {"rows": 8, "length": 576, "images": 20, "patches": 192}})
        config.sft.data.update({"sets": (TOY_WORLD,), "lanes": 1, "num_workers": 0})
        config.sft.optimizer.update({"learning_rate": 2e-3, "warmup_steps": 10, "final_fraction": 0.1, "b2": 0.98})
    if isinstance(settings, GRPOSettings):
        config.grpo.update(
            {
                "rows": TOY_WORLD,
                "num_steps": 32,
                "prompts_per_step": 12,
                "updates_per_batch": 1,
                # Below 1, fewer trajectories fail by chance, and rewards depend more on the errors of greedy decoding.
                "temperature": 0.8,
                "batch": {"rows": 12, "length": 576, "images": 12, "patches": 192},
                # A smaller program would take longer to compile than it saves.
                "halvings": 0,
            }
        )
        # The paper's KL weight is 0.001 at a learning rate of 2e-6. At a tiny policy's rate, the noise of the advantages needs
        # a stronger pull back to the SFT policy.
        config.grpo.loss.kl_coef = 0.1
        config.grpo.reward.match = "exact"
        config.grpo.optimizer.update(
            {"learning_rate": 4e-4, "warmup_steps": 2, "decay": "cosine", "final_fraction": 0.1, "b2": 0.98}
        )
    return config
