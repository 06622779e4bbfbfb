"""The whole pipeline on one CPU in ten minutes: SFT, GRPO with live search, evaluation in four modes, report.

mmsearch quickstart
mmsearch quickstart --smoke
"""

import ml_collections

from mmsearch_jax.recipes import tiny
from mmsearch_jax.settings.commands import QuickstartSettings


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """SFT and then GRPO in the same worlds, with the settings of their own configs.

    Args:
      size: "smoke" reduces every size: the same pipeline in a minute and a half, as a test.
    """
    config = tiny.base(QuickstartSettings())
    if size == "smoke":
        config.world.update(
            {"num_lands": 24, "num_grpo_lands": 12, "num_sft_rows": 96, "num_grpo_rows": 16, "num_eval_rows": 24}
        )
        config.sft.num_steps = 3
        config.sft.optimizer.warmup_steps = 1
        config.grpo.update({"num_steps": 1, "prompts_per_step": 2, "group_size": 4, "updates_per_batch": 1})
        config.engine.update({"num_slots": 24, "decode_rows": (), "length_buckets": ()})
    return config
