"""Where results come from: the corpus on this machine, the web backends, and their order."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.settings import Section, SettingError, setting
from tools_server.backends.providers import IMAGE, TEXT, Provider
from tools_server.extracts import MAX_SNIPPET_CHARS

LOCAL = "local"
"""The name of the backend that searches the corpus on this machine."""
BY_WORDS, BY_VECTORS, BY_BOTH = WAYS = ("bm25", "dense", "both")


@dataclasses.dataclass(frozen=True)
class LocalSettings(Section):
    """The corpus on this machine: a folder of pages, or an index that `mmsearch index` made."""

    extract_chars: int = setting(
        MAX_SNIPPET_CHARS,
        "characters of the extracts of a page or passage that text search shows: its sentences and lines that fit the query "
        "best; 0: all of it, up to limits.max_snippet_chars. /retrieve gives passages whole",
        at_least=0,
    )
    by: str = setting("", "how an index is searched; empty: both where it has vectors, else bm25", one_of=("", *WAYS))
    embedder: str = setting("", "folder or address of the index's embedder, if it has moved since the index was built")
    pictures: str = setting("", "index of pictures for image search; empty: the pictures of the corpus folder")


@dataclasses.dataclass(frozen=True)
class TextSources(Section):
    """Who answers text searches."""

    backends: tuple[str, ...] = setting(
        (LOCAL,), "backends in the order in which they are tried", one_of=(LOCAL, *TEXT)
    )


@dataclasses.dataclass(frozen=True)
class ImageSources(Section):
    """Who answers image searches."""

    backends: tuple[str, ...] = setting(
        (LOCAL,), "backends in the order in which they are tried", one_of=(LOCAL, *IMAGE)
    )


@dataclasses.dataclass(frozen=True)
class BackendLimits(Section):
    """How much one backend is used."""

    calls_per_s: float = setting(10.0, "rate; a token bucket holds the calls of one second", above=0)
    max_concurrency: int = setting(64, "calls in progress at the same time", at_least=1)
    attempt_timeout_s: float = setting(
        8.0, "seconds after which a call is abandoned and, if the deadline allows it, repeated", above=0
    )
    max_attempts: int = setting(10, "calls for one query", at_least=1)
    breaker_window: int = setting(20, "latest calls that the circuit breaker considers; 0: it never opens", at_least=0)
    breaker_share: float = setting(
        0.9, "share of failures in the window at which the circuit breaker opens", above=0, at_most=1
    )
    breaker_rest_s: float = setting(10.0, "seconds that the circuit breaker stays open", at_least=0)
    hedge_after_s: float = setting(
        0.0,
        "seconds after which a second call is made in parallel; the first answer is used and both are paid for. 0: never",
        at_least=0,
    )


@dataclasses.dataclass(frozen=True)
class WebBackendSettings(BackendLimits):
    """One web backend. The defaults are the provider's (`backends.providers`)."""

    url: str = setting(doc="address of the service", kw_only=True)
    key_env: str = setting(doc="environment variable with the key; empty: no key", kw_only=True)
    cost_usd: float = setting(doc="price of one call in dollars, counted against the budget", at_least=0, kw_only=True)

    def check(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise SettingError("url", f"is '{self.url}': give an address that begins with http:// or https://")


def provider_backends() -> dict[str, WebBackendSettings]:
    """The settings of all web backends with their providers' defaults."""
    return {name: _defaults(provider) for name, provider in {**TEXT, **IMAGE}.items()}


def _defaults(provider: Provider) -> WebBackendSettings:
    return WebBackendSettings(
        provider.calls_per_s, url=provider.url, key_env=provider.key_env, cost_usd=provider.cost_usd
    )
