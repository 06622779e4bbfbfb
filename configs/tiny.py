"""What all configs of the tiny policy share: checkpoint, worlds, episode rules, engine sizes. Not a config by itself."""

import ml_collections

from mmsearch_jax.core.bundled import bundled

TINY_BASE = str(bundled("assets/tiny-base"))


def base(checkpoint: str = TINY_BASE) -> ml_collections.ConfigDict:
    """Seed, policy, worlds, episodes and engine."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            # A policy's folder: Hugging Face, or made by `mmsearch import-hf`.
            "checkpoint": checkpoint,
            # Rank 0 trains all parameters, which so small a policy needs; the paper trains LoRA of rank 8 (sec. 3.1).
            "lora": {
                "rank": 0,
                "alpha": 16.0,
                "dropout": 0.0,
                "targets": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
            },
            # What the backward pass computes again to save memory: "none", "dots" (all but products with weights) or "full".
            "remat": "none",
            # Of the computation; parameters that are trained, and the optimiser, are float32 in any case.
            "dtype": "float32",
            # Area to which larger images are made smaller; 0: as the checkpoint says.
            "max_pixels": 0,
            # Over all devices of all processes; -1 is what the others leave; `dcn` is the number of slices (docs/training.md).
            "mesh": {"dcn": 1, "data": 1, "fsdp": -1, "tensor": 1, "sequence": 1},
            # Rows that differ from `distributed.sharding.RULES`: "embed": () keeps weights whole over fsdp.
            "sharding_rules": {},
            # 0: a checkpoint at the end only. `keep` of the latest, and the best.
            "run": {
                "checkpoint_every": 0,
                "keep": 2,
                "max_skipped": 5,
                "resume": True,
                "wandb": "",
                # Steps to trace for xprof, from the `profile_first`-th of this start on (the first ones compile).
                "profile_steps": 0,
                "profile_first": 3,
            },
            # The mini-world is built in the work folder when it is not there yet.
            "world": {
                "num_lands": 160,
                "num_grpo_lands": 100,
                "num_sft_rows": 900,
                "num_grpo_rows": 432,
                "num_eval_rows": 300,
                # Fewer than half: what looking alone answers gives groups of equal rewards, from which nothing is learnt.
                "grpo_free_share": 0.2,
            },
            "tools": {
                # Empty: a server of our own is started on a free port, over the world's corpus.
                "url": "",
                "deadline_s": 30.0,
                "max_concurrency": 32,
                # The environment variable with the token that the server asks for, where it does.
                "token_env": "",
            },
            # Much shorter than the paper's limits: a laptop's policy reads and writes little.
            "episode": {
                "prompt_style": "short",
                "max_tool_calls": 4,
                "max_image_searches": 1,
                "max_text_searches": 3,
                "max_turn_tokens": 96,
                "max_trajectory_tokens": 576,
                "observation_max_tokens": 72,
                "top_k_text": 2,
                "top_k_image": 2,
                "say_last_turn": False,
            },
            "engine": {
                "num_slots": 64,
                "decode_width": 0,
                "max_length": 576,
                "extend_rows": (16,),
                "extend_buckets": (128,),
                "decode_rows": (16,),
                "length_buckets": (256,),
                "decode_steps": 16,
            },
        }
    )
