"""Settings of a chat endpoint. `chat_client` talks to it; settings are read without an HTTP client."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.settings import Section, SettingError, setting


@dataclasses.dataclass(frozen=True)
class ChatEndpoint(Section):
    """A chat endpoint and its limits."""

    url: str = setting("", "address up to and including /v1; empty: none")
    model: str = setting("", "the model's name at the endpoint")
    key_env: str = setting(
        "CHAT_API_KEY",
        "environment variable with the key, if the endpoint needs one; no config, log or error contains the key",
    )
    deadline_s: float = setting(60.0, "seconds for one reply, including retries", above=0)
    max_concurrency: int = setting(32, "requests in progress at the same time", at_least=1)
    max_tokens: int = setting(512, "maximum tokens of a reply; reasoning models need more", at_least=1)
    temperature: float = setting(0.0, "sampling temperature; 0 decodes greedily", at_least=0)

    def check(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise SettingError("url", f"is '{self.url}': give an address such as http://localhost:8000/v1")
        if self.url and not self.model:
            raise SettingError("model", "is empty: name the model that the endpoint serves")
