"""Serves a policy to any OpenAI client: chat completions with images, and search episodes if --tools-url is given.

mmsearch serve --config.checkpoint=runs/grpo/policies/grpo
mmsearch serve --config.checkpoint=runs/grpo/policies/grpo --tools-url http://127.0.0.1:8765
"""

import ml_collections

from mmsearch_jax.recipes import tiny
from mmsearch_jax.settings.commands import ServingSettings


def get_config() -> ml_collections.ConfigDict:
    """The tiny policy."""
    config = tiny.base(ServingSettings())
    config.engine.top_logprobs = 20  # OpenAI's limit; costs nothing until a request asks
    return config
