"""GRPO of Qwen2.5-VL-72B as in DeepMMSearch-R1, on 64 v5p chips or on the topology named after the file.

mmsearch grpo --config configs/grpo_qwen2_5_vl_72b.py:v5p:4x4x4 --config.checkpoint=/mnt/runs/sft/policies/sft \
    --config.grpo.rows=/mnt/data/fvqa.array_record --config.tools.url=http://search:8765 \
    --config.grpo.judge.url=http://judge:8000/v1 --config.grpo.judge.model=Qwen3-32B --workdir /mnt/runs/grpo --distributed
"""

import ml_collections

from mmsearch_jax.recipes import qwen2_5_vl


def get_config(topology: str = "v5p:4x4x4") -> ml_collections.ConfigDict:
    """GRPO on FVQA's training prompts; see `qwen2_5_vl.grpo`."""
    return qwen2_5_vl.grpo("72b", topology)
