"""Serves a policy of 7B, or the published base, for lmms-eval and VLMEvalKit (docs/serving.md), on a host of four chips.

mmsearch serve --config configs/serve_qwen2_5_vl_7b.py --config.checkpoint=runs/grpo/policies/grpo
"""

import ml_collections

from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.settings.commands import ServingSettings


def get_config() -> ml_collections.ConfigDict:
    """Greedy baselines and long answers fit: 12,288 tokens, images of up to 1,280 of them."""
    config = as_config(ServingSettings(checkpoint="runs/grpo/policies/grpo"))
    config.engine.tensor = 4
    # Searches are offered if --tools-url names a server.
    config.tools.url = ""
    return config
