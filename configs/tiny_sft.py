"""Teaches the tiny base to use the tools, from the scripted teacher's conversations in the training world.

mmsearch sft --config configs/tiny_sft.py --workdir runs/sft
"""

import ml_collections

from configs import tiny


def get_config() -> ml_collections.ConfigDict:
    """SFT of the tiny base."""
    config = tiny.base()
    config.sft = ml_collections.ConfigDict(
        {
            "num_steps": 132,
            # Rows of `length` tokens; `images` rows of `patches` patches, which small images share.
            "batch": {"rows": 8, "length": 576, "images": 20, "patches": 192},
            # The paper freezes the vision tower in SFT (sec. 3.1).
            "freeze": ("vision",),
            # Batches that make one update.
            "accumulate": 1,
            # ArrayRecord files; without any, the teacher's conversations in the training world. `lanes`: the largest number of
            # processes that the run may ever have.
            "data": {
                "sets": (),
                "weights": (),
                "lanes": 1,
                "num_workers": 0,
                "validation": (),
                "validation_batches": 8,
                "validate_every": 100,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-3,
                "warmup_steps": 10,
                "decay": "cosine",
                "final_fraction": 0.1,
                "weight_decay": 0.0,
                "b2": 0.98,
            },
        }
    )
    return config
