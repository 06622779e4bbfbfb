"""How a policy is served to OpenAI clients."""

from __future__ import annotations

import dataclasses
import os

from mmsearch_jax.core.settings import Section, SettingError, setting


@dataclasses.dataclass(frozen=True)
class ServeConfig(Section):
    """What is served to whom."""

    model: str = setting("", "the model's name for clients; empty: the name of the checkpoint's directory")
    token_env: str = setting("", "environment variable with the token that callers must send; empty: everybody may ask")
    max_waiting: int = setting(256, "replies that may wait for a slot; more are answered with 429", at_least=0)
    max_body_mib: float = setting(64.0, "MiB of a request, images included", above=0)
    fetch_images: bool = setting(
        False,
        "fetch images from http and https URLs; any caller can then make this machine send requests to any address",
    )
    system_prompt: str = setting(
        "",
        "of chats that bring no system message. Qwen2.5-VL's own template says 'You are a helpful assistant.'; policies "
        "trained here are trained without",
    )

    @property
    def max_body_bytes(self) -> int:
        """Bytes of a request."""
        return int(self.max_body_mib * 2**20)

    def check_ready(self) -> None:
        if self.token_env and not os.environ.get(self.token_env):
            raise SettingError(
                "token_env", f"names the environment variable {self.token_env}, which is not set: export it"
            )
