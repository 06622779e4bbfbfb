"""What the configs of the published Qwen2.5-VL models share. Not a config by itself.

Sizes of batch and engine are for the 7B on a host of four 95 GB chips; `docs/training.md` says what to change for others.
"""

import ml_collections

from configs import tiny


def base(checkpoint: str) -> ml_collections.ConfigDict:
    """The paper's episodes (DeepMMSearch-R1, sec. 3) and LoRA of rank 8 in bf16."""
    config = tiny.base(checkpoint)
    config.dtype = "bfloat16"
    config.remat = "full"
    # 1,280 tokens an image.
    config.max_pixels = 1280 * 28 * 28
    # Alpha and dropout are not stated in the paper.
    config.lora.update({"rank": 8, "alpha": 16.0})
    config.run.checkpoint_every = 50
    config.tools.update({"url": "http://127.0.0.1:8765", "deadline_s": 60.0})
    config.episode.update({
        "prompt_style": "paper", "max_tool_calls": 10, "max_image_searches": 1, "max_text_searches": 10,
        "max_turn_tokens": 1024, "max_trajectory_tokens": 12288, "observation_max_tokens": 1024, "top_k_text": 5,
        "top_k_image": 5, "say_last_turn": True,
    })  # fmt: skip
    config.engine.update({
        "num_slots": 64, "max_length": 12288, "extend_rows": (1, 8), "extend_buckets": (256, 1024, 2048), "decode_rows": (16,),
        "length_buckets": (2048, 4096, 8192), "tensor": 4,
    })  # fmt: skip
    return config
