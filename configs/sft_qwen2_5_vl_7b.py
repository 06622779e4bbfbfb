"""SFT as in DeepMMSearch-R1 (sec. 3.1, 4.1): LoRA of rank 8 on all linear modules of the language model, vision frozen.

mmsearch sft --config configs/sft_qwen2_5_vl_7b.py --config.checkpoint=Qwen2.5-VL-7B-Instruct \
    --config.sft.data.sets="('deepmmsearchvqa.array_record',)" --workdir runs/sft
"""

import ml_collections

from configs import qwen2_5_vl, tiny_sft


def get_config() -> ml_collections.ConfigDict:
    """SFT of the 7B on conversations of one's own (`mmsearch data convert`)."""
    config = qwen2_5_vl.base("Qwen2.5-VL-7B-Instruct")
    config.sft = tiny_sft.get_config().sft
    config.sft.update({
        # 10k samples, three epochs, about three conversations in a row of 8,192 tokens.
        "num_steps": 1250,
        "batch": {"rows": 8, "length": 8192, "images": 32, "patches": 5120},
    })  # fmt: skip
    config.sft.data.update({"lanes": 8, "num_workers": 8})
    # Warm-up 0.1 of the steps.
    config.sft.optimizer.update({"learning_rate": 1e-4, "warmup_steps": 125, "final_fraction": 0.0, "b2": 0.999})
    return config
