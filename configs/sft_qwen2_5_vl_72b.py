"""SFT of Qwen2.5-VL-72B as in DeepMMSearch-R1, on 32 v5p chips or on the topology named after the file.

mmsearch sft --config configs/sft_qwen2_5_vl_72b.py:v5p:2x4x4 --config.checkpoint=/mnt/models/Qwen2.5-VL-72B-Instruct \
    --config.sft.data.sets="('/mnt/data/deepmmsearchvqa.array_record',)" --workdir /mnt/runs/sft --distributed
"""

import ml_collections

from mmsearch_jax.recipes import qwen2_5_vl


def get_config(topology: str = "v5p:2x4x4") -> ml_collections.ConfigDict:
    """SFT on your own conversations (`mmsearch data convert`); see `qwen2_5_vl.sft`."""
    return qwen2_5_vl.sft("72b", topology)
