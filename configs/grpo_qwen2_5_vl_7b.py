"""GRPO as in DeepMMSearch-R1 (sec. 3.2, 4.1): live tools, eight rollouts a prompt, an LLM as judge.

mmsearch grpo --config configs/grpo_qwen2_5_vl_7b.py --config.checkpoint=runs/sft/policies/sft \
    --config.grpo.rows=fvqa.array_record --config.tools.url=http://search:8765 \
    --config.grpo.judge.url=http://judge:8000/v1 --config.grpo.judge.model=Qwen3-32B --workdir runs/grpo
"""

import ml_collections

from configs import qwen2_5_vl, tiny_grpo


def get_config() -> ml_collections.ConfigDict:
    """GRPO of the 7B on FVQA's training prompts. Where the paper contradicts itself: 20 epochs, batch 512, mini-batch 64."""
    config = qwen2_5_vl.base("runs/sft/policies/sft")
    config.grpo = tiny_grpo.get_config().grpo
    config.grpo.update({
        "rows": "fvqa_train.array_record",
        # 5,000 prompts, 20 epochs.
        "num_steps": 1560, "prompts_per_step": 64, "group_size": 8, "updates_per_batch": 8, "temperature": 1.0,
        "batch": {"rows": 8, "length": 12288, "images": 16, "patches": 5120},
    })  # fmt: skip
    config.grpo.loss.update({"clip_low": 0.2, "clip_high": 0.2, "kl_coef": 0.001, "aggregation": "sequence"})
    config.grpo.reward.match = "exact_or_judge"
    config.grpo.optimizer.update({
        "learning_rate": 2e-6, "warmup_steps": 45, "decay": "constant", "b2": 0.999,
    })  # fmt: skip
    return config
