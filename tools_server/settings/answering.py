"""How requests are answered: their limits, the cache, the budget, and the summary of results."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.search_api import RequestLimits
from mmsearch_jax.core.settings import Section, SettingError, setting
from tools_server.settings.environment import check_packages, check_variable

_LIMITS = RequestLimits()
CACHE_MODES = ("off", "live", "record", "replay", "replay-or-live")


@dataclasses.dataclass(frozen=True)
class ServiceLimits(Section):
    """Limits of one request, and of all requests together."""

    max_body_bytes: int = setting(_LIMITS.max_body_bytes, "bytes of a request", at_least=1)
    max_pixels: int = setting(_LIMITS.max_pixels, "pixels of an image, checked before it is decoded", at_least=1)
    max_query_chars: int = setting(
        _LIMITS.max_query_chars, "characters of a query or a referring expression; a longer one is refused", at_least=1
    )
    max_top_k: int = setting(_LIMITS.max_top_k, "results of one search", at_least=1)
    max_batch: int = setting(64, "searches in one batch request", at_least=1)
    max_waiting: int = setting(256, "tasks that wait for a thread; further ones are refused at once", at_least=1)
    num_threads: int = setting(2, "threads for images and for the corpus on this machine", at_least=1)
    deadline_s: float = setting(30.0, "seconds for one search, even if the caller allows more", above=0)
    max_snippet_chars: int = setting(
        800, "characters of one result; of a longer one the extracts that fit the query best are kept", at_least=1
    )
    max_kept_image_bytes: int = setting(
        256 * 2**20, "bytes of all images that were sent to /v1/images and are kept", at_least=1
    )

    @property
    def of_requests(self) -> RequestLimits:
        """What a client must know to fit its requests."""
        return RequestLimits(self.max_body_bytes, self.max_pixels, self.max_query_chars, self.max_top_k)


@dataclasses.dataclass(frozen=True)
class CacheSettings(Section):
    """Answers that are kept and replayed."""

    mode: str = setting("off", "what is fetched and what is kept: docs/tools_server.md", one_of=CACHE_MODES)
    path: str = setting("runs/tools/cache.sqlite", "SQLite file of the answers and of the budget")
    redis_url_env: str = setting(
        "", "environment variable with the address of a Redis that several servers share; empty: use the file"
    )
    ttl_s: float = setting(30 * 86400.0, "age in seconds at which mode live fetches an answer again", at_least=0)
    negative_ttl_s: float = setting(3600.0, "the same for an answer without results", at_least=0)

    def check_ready(self) -> None:
        if self.redis_url_env:
            check_packages(("redis",), "redis", "redis_url_env", self.redis_url_env)
            check_variable(self.redis_url_env, "redis_url_env")


@dataclasses.dataclass(frozen=True)
class BudgetSettings(Section):
    """What a run may spend on web searches. It is counted in the cache's store, so it survives a restart."""

    run: str = setting("default", "name of the run; a new name starts from zero")
    max_calls: int = setting(0, "calls of all web backends together; 0: no limit", at_least=0)
    max_usd: float = setting(0.0, "dollars of all web backends together; 0: no limit", at_least=0)


@dataclasses.dataclass(frozen=True)
class SummariserSettings(ChatEndpoint):
    """What the policy reads instead of the plain results, and the endpoint of the model that writes it."""

    key_env: str = setting("SUMMARISER_API_KEY", "environment variable with the endpoint's key, if it asks for one")
    deadline_s: float = setting(20.0, "seconds for one reply, retries included", above=0)
    max_tokens: int = setting(600, "room for a reply; models that think aloud need more", at_least=1)
    kind: str = setting(
        "none",
        "none: the results as they are; extract: their best sentences; model: a summary by an LLM, or sentences if it fails",
        one_of=("none", "extract", "model"),
    )
    max_chars: int = setting(2400, "characters of a summary", at_least=1)

    def check(self) -> None:
        super().check()
        if self.kind == "model" and not self.url:
            raise SettingError("url", "is empty, but kind is 'model': give the endpoint's address, up to and with /v1")
