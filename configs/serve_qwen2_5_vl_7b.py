"""Serves a 7B policy, or the published base, for lmms-eval and VLMEvalKit (docs/serving.md), on a host of four chips.

mmsearch serve --config configs/serve_qwen2_5_vl_7b.py --config.checkpoint=runs/grpo/policies/grpo
"""

import ml_collections

from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.settings.commands import ServingSettings


def get_config() -> ml_collections.ConfigDict:
    """A context of 12,288 tokens, with images of up to 1,280 tokens: enough for the baselines and long answers."""
    config = as_config(ServingSettings(checkpoint="runs/grpo/policies/grpo"))
    config.engine.tensor = 4
    config.engine.top_logprobs = 20  # OpenAI's limit; costs nothing until a request asks
    # --tools-url adds a server and so offers searches.
    config.tools.url = ""
    return config
