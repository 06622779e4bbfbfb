"""Settings of the OpenAI-compatible server of a policy."""

from __future__ import annotations

import dataclasses
import os

from mmsearch_jax.core import protocol
from mmsearch_jax.core.settings import Section, VariableNotSet, setting


@dataclasses.dataclass(frozen=True)
class ServeConfig(Section):
    """Name, access and limits of the server."""

    model: str = setting("", "the model's name for clients; empty: the name of the checkpoint's directory")
    token_env: str = setting("", "environment variable with the token that clients must send; empty: no token needed")
    max_waiting: int = setting(256, "replies that may wait for a slot; further requests get HTTP 429", at_least=0)
    max_body_mib: float = setting(64.0, "MiB per request, including images", above=0)
    max_pixels: int = setting(
        64_000_000, "pixels of an image, checked before it is unpacked; two are unpacked at the same time", at_least=1
    )
    unanswered: str = setting(
        protocol.GIVE_UP,
        "content of a search episode that ended without an answer; evaluation harnesses repeat a request whose content is "
        "empty",
    )
    fetch_images: bool = setting(
        False,
        "fetch images from http and https URLs; any caller can then make this machine send requests to any address",
    )
    system_prompt: str = setting(
        "",
        "system message of chats that have none. Qwen2.5-VL's own template says 'You are a helpful assistant.'; policies "
        "are trained here without a system message",
    )

    @property
    def max_body_bytes(self) -> int:
        """Maximum bytes per request."""
        return int(self.max_body_mib * 2**20)

    def check_ready(self) -> None:
        if self.token_env and not os.environ.get(self.token_env):
            raise VariableNotSet("token_env", self.token_env)
