"""Serves a policy to any OpenAI client: chat completions with images, and search episodes where there are tools.

mmsearch serve --config.checkpoint=runs/grpo/policies/grpo
mmsearch serve --config.checkpoint=runs/grpo/policies/grpo --tools-url http://127.0.0.1:8765
"""

import ml_collections

from configs import tiny


def server() -> ml_collections.ConfigDict:
    """What is served to whom."""
    return ml_collections.ConfigDict(
        {
            # What clients ask for; empty: the name of the checkpoint's folder.
            "model": "",
            # Name of an environment variable that holds the token callers must send; empty: everybody may ask.
            "token_env": "",
            # Replies that may wait for a slot; more are answered with 429.
            "max_waiting": 256,
            # Of a request, its images included.
            "max_body_mib": 64,
            # Whether images are fetched from http and https URLs. Any caller can then have this machine ask any address.
            "fetch_images": False,
            # Of chats that bring no system message: Qwen2.5-VL's own template says "You are a helpful assistant."; our policies
            # are trained without.
            "system_prompt": "",
        }
    )


def get_config() -> ml_collections.ConfigDict:
    """The tiny policy."""
    config = tiny.base()
    config.serve = server()
    return config
