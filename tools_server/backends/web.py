"""Backends for the web providers: the key from the environment, one call, results that are read and cleaned."""

from __future__ import annotations

import html
import os
import re
from typing import Protocol

from mmsearch_jax.core.search_api import SearchResult, fit_text
from tools_server.backends.backend import QueryPicture
from tools_server.backends.provider_replies import MALFORMED, ProviderFailed, results_of
from tools_server.backends.providers import IMAGE, TEXT, Ask, Provider, in_base64, refusal_of
from tools_server.backends.upstream import Sessions, call, redact
from tools_server.failures import SearchFailure
from tools_server.settings.sources import WebBackendSettings

_SHOWN = 200
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")


class ImagePublisher(Protocol):
    """Publishes an image so that a provider can fetch it."""

    async def publish(self, data: bytes) -> str:
        """The public address of a JPEG."""
        ...


class _Web:
    """What text and image backends share."""

    def __init__(self, name: str, provider: Provider, sessions: Sessions, settings: WebBackendSettings):
        self.name, self.cost_usd = name, settings.cost_usd
        self._provider, self._sessions, self._url, self._key_env = provider, sessions, settings.url, settings.key_env
        self._key = os.environ[settings.key_env] if settings.key_env else ""
        self._refusal = refusal_of(name, provider)

    async def _ask(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        ask = Ask(self._url.rstrip("/"), self._key, query, top_k)
        request = self._provider.request(ask)
        reply = await call(self._sessions, request, self.name, self._key, self._key_env, self._refusal)
        try:
            found = [_clean(result) for result in results_of(self._provider.results, reply)]
        except ProviderFailed as failed:
            why = redact(failed.why[:_SHOWN], self._key)
            passing = failed.code in ("upstream_error", "rate_limited")
            raise SearchFailure(failed.code, f"{self.name} could not search: {why}", passing) from None
        except MALFORMED as error:
            # The upstream's text is not repeated: a malformed reply may contain anything.
            raise SearchFailure(
                "upstream_error",
                f"{self.name}: the reply does not have the documented form ({type(error).__name__})",
                passing=True,
            ) from None
        return tuple(result for result in found if result.title or result.snippet)[:top_k]


class WebText(_Web):
    """A text provider by its name in `providers.TEXT`."""

    def __init__(self, name: str, sessions: Sessions, settings: WebBackendSettings):
        super().__init__(name, TEXT[name], sessions, settings)

    async def search(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        return await self._ask(fit_text(query, self._provider.max_query_chars, self._provider.max_query_words), top_k)


class WebImage(_Web):
    """An image provider by its name in `providers.IMAGE`.

    Args:
      publisher: needed by a provider that fetches the image from a public address.
    """

    def __init__(self, name: str, sessions: Sessions, settings: WebBackendSettings, publisher: ImagePublisher | None):
        super().__init__(name, IMAGE[name], sessions, settings)
        self._publisher = publisher

    async def search(self, query: QueryPicture, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        if self._publisher is not None and self._provider.wants == "url":
            return await self._ask(await self._publisher.publish(query.jpeg), top_k)
        return await self._ask(in_base64(query.jpeg), top_k)


def _clean(result: SearchResult) -> SearchResult:
    """The result without its thumbnail and without the highlighting markup that some providers leave in the texts."""
    title, snippet = (" ".join(html.unescape(_TAG.sub("", part)).split()) for part in (result.title, result.snippet))
    return SearchResult(title, snippet, result.url, score=result.score, id=result.id)
