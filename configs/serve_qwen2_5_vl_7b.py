"""Serves a policy of 7B, or the published base, for lmms-eval and VLMEvalKit (docs/serving.md).

mmsearch serve --config configs/serve_qwen2_5_vl_7b.py --config.checkpoint=runs/grpo/policies/grpo
"""

import ml_collections

from configs import qwen2_5_vl, serve


def get_config() -> ml_collections.ConfigDict:
    """Greedy baselines and long answers fit: 12,288 tokens, images of up to 1,280 of them."""
    config = qwen2_5_vl.base("runs/grpo/policies/grpo")
    config.serve = serve.server()
    # Searches are offered where --tools-url says so.
    config.tools.url = ""
    return config
