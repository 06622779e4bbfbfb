"""Makes the tiny base from nothing, on a laptop's CPU.

mmsearch pretrain --config configs/tiny_pretrain.py --workdir runs/pretrain
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Recipe of the tiny base."""
    return ml_collections.ConfigDict({
        "seed": 0,
        "out": "runs/pretrain/base",
        "text": {
            "vocab_size": 640, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4,
            "num_attention_heads": 6, "num_key_value_heads": 2, "mrope_section": (4, 6, 6), "rope_theta": 10000.0,
            "tie_word_embeddings": True, "max_position_embeddings": 4096,
        },
        "vision": {
            "depth": 3, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "out_hidden_size": 192,
            "fullatt_block_indexes": (2,),
        },
        # 448 x 336 scenes become 224 x 168: 16 x 12 patches, 48 tokens.
        "max_pixels": 224 * 168,
        "batch": {"rows": 12, "length": 512, "images": 14, "patches": 192},
        "parts": {
            # Copying appears within some 100 steps of nothing but echoes; mixed with other lessons it may never.
            "part_1": {
                "steps": 190,
                "mixture": {"echo": 1.0, "reading": 0.0, "joining": 0.0, "copying": 0.0, "chain": 0.0, "looking": 0.0},
            },
            "part_2": {
                "steps": 650,
                "mixture": {"echo": 0.3, "reading": 0.25, "joining": 0.05, "copying": 0.3, "chain": 0.0, "looking": 0.1},
            },
            # What the tools will ask for: long chains of reading, and a good look at pictures.
            "part_3": {
                "steps": 1450,
                "mixture": {"echo": 0.15, "reading": 0.1, "joining": 0.05, "copying": 0.15, "chain": 0.25, "looking": 0.3},
            },
        },
        "checkpoint_every": 200,
        "optimizer": {"name": "adamw", "learning_rate": 4e-3, "warmup_steps": 50, "decay": "cosine",
                      "final_fraction": 0.02, "weight_decay": 0.01, "b2": 0.98},
        "num_scenes": 3000,
        "world_size": 400,
    })  # fmt: skip
