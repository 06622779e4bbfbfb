"""Second part of making assets/tiny-base: longer chains of reading, and many more pictures.

mmsearch pretrain --config configs/tiny_pretrain_more.py --workdir runs/pretrain-more
"""

import ml_collections

from configs import tiny_pretrain


def get_config() -> ml_collections.ConfigDict:
    """Goes on from runs/pretrain/base."""
    config = tiny_pretrain.get_config()
    config.update({"init": "runs/pretrain/base", "out": "assets/tiny-base", "warm_up_steps": 0, "num_steps": 520})
    config.seed = 1
    config.batch.update({"length": 320, "rows": 20, "images": 28})
    config.mixture.update({"echo": 0.03, "reading": 0.1, "joining": 0.07, "copying": 0.1, "chain": 0.3, "looking": 0.4})
    config.optimizer.update({"learning_rate": 2.5e-3, "warmup_steps": 20})
    config.num_scenes = 2500
    return config
