"""Makes the tiny base from nothing, on a laptop's CPU.

mmsearch pretrain --config configs/tiny_pretrain.py --workdir runs/pretrain
"""

from typing import Any

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Recipe of the tiny base."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "out": "runs/pretrain/base",
            "text": {
                "vocab_size": 640,
                "hidden_size": 192,
                "intermediate_size": 512,
                "num_hidden_layers": 4,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "mrope_section": (4, 6, 6),
                "rope_theta": 10000.0,
                "tie_word_embeddings": True,
                "max_position_embeddings": 4096,
            },
            "vision": {
                "depth": 3,
                "hidden_size": 128,
                "intermediate_size": 256,
                "num_heads": 4,
                "out_hidden_size": 192,
                "fullatt_block_indexes": (2,),
            },
            # 448 x 336 scenes become 224 x 168: 16 x 12 patches, 48 tokens. Each of the `images` rows of patches holds one.
            "max_pixels": 224 * 168,
            "batch": {"rows": 12, "length": 512, "images": 18, "patches": 192},
            "courses": {
                "course_1": {
                    "parts": {
                        # Copying appears within some 100 steps of nothing but echoes; mixed with other lessons it may never.
                        "part_1": _part(190, echo=1.0),
                        "part_2": _part(650, echo=0.3, reading=0.25, joining=0.05, copying=0.3, looking=0.1),
                        # What the tools will ask for: long chains of reading.
                        "part_3": _part(
                            1450, echo=0.15, reading=0.1, joining=0.05, copying=0.15, chain=0.25, looking=0.3
                        ),
                    },
                    "optimizer": _optimizer(4e-3),
                },
                # Then a good look at pictures, with enough of the rest to keep it.
                "course_2": {
                    "parts": {"part_1": _part(470, reading=0.1, copying=0.05, chain=0.2, looking=0.65)},
                    "optimizer": _optimizer(1.5e-3),
                },
            },
            "checkpoint_every": 200,
            "num_scenes": 3000,
            "world_size": 400,
        }
    )


def _part(steps: int, **mixture: float) -> dict[str, Any]:
    nothing = dict.fromkeys(("echo", "reading", "joining", "copying", "chain", "looking"), 0.0)
    return {"steps": steps, "mixture": nothing | mixture}


def _optimizer(learning_rate: float) -> dict[str, Any]:
    return {
        "name": "adamw",
        "learning_rate": learning_rate,
        "warmup_steps": 50,
        "decay": "cosine",
        "final_fraction": 0.02,
        "weight_decay": 0.01,
        "b2": 0.98,
    }
