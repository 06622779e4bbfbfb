"""Backends over the web providers: the key from the environment, one call, results read and cleaned."""

from __future__ import annotations

import html
import os
import re
from typing import Protocol

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.search_api import SearchResult
from tools_server.backends.base import QueryPicture
from tools_server.backends.providers import IMAGE, TEXT, Ask, Provider, in_base64, refusal_of
from tools_server.backends.upstream import Sessions, call
from tools_server.failures import SearchFailure

_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")


class ImagePublisher(Protocol):
    """Puts an image where a provider can fetch it."""

    async def publish(self, data: bytes) -> str:
        """The public address of a JPEG."""
        ...


class _Web:
    """What text and image backends share.

    Raises:
      ConfigError: the provider needs a key and the environment has none.
    """

    def __init__(self, name: str, provider: Provider, sessions: Sessions, url: str, key_env: str, cost_usd: float):
        key = os.environ.get(key_env, "") if key_env else ""
        if provider.key_env and not key:
            raise ConfigError(
                f"the backend '{name}' needs a key: set the environment variable {key_env or provider.key_env}"
            )
        self.name, self.cost_usd = name, cost_usd
        self._provider, self._sessions, self._url, self._key, self._key_env = provider, sessions, url, key, key_env
        self._refusal = refusal_of(name, provider)

    async def _ask(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        ask = Ask(self._url.rstrip("/"), self._key, query, top_k)
        request = self._provider.request(ask)
        reply = await call(self._sessions, request, self.name, self._key, self._key_env, self._refusal)
        try:
            found = [_clean(result) for result in self._provider.results(reply)]
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            # The upstream's words are not repeated: a reply that is not what it should be may hold anything.
            raise SearchFailure(
                "upstream_error",
                f"{self.name}: the reply has not the documented form ({type(error).__name__})",
                passing=True,
            ) from None
        return tuple(result for result in found if result.title or result.snippet)[:top_k]


class WebText(_Web):
    """A text provider by its name in `providers.TEXT`."""

    def __init__(self, name: str, sessions: Sessions, url: str, key_env: str, cost_usd: float):
        super().__init__(name, TEXT[name], sessions, url, key_env, cost_usd)

    async def search(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        return await self._ask(query, top_k)


class WebImage(_Web):
    """An image provider by its name in `providers.IMAGE`.

    Raises:
      ConfigError: it wants a public address and there is no publisher.
    """

    def __init__(
        self, name: str, sessions: Sessions, url: str, key_env: str, cost_usd: float, publisher: ImagePublisher | None
    ):
        super().__init__(name, IMAGE[name], sessions, url, key_env, cost_usd)
        if self._provider.wants == "url" and publisher is None:
            raise ConfigError(
                f"the backend '{name}' fetches images from a public address: set config.publisher.kind, "
                "or use google_vision, which takes the image itself"
            )
        self._publisher = publisher

    async def search(self, query: QueryPicture, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        if self._publisher is not None and self._provider.wants == "url":
            return await self._ask(await self._publisher.publish(query.jpeg), top_k)
        return await self._ask(in_base64(query.jpeg), top_k)


def _clean(result: SearchResult) -> SearchResult:
    """Titles and snippets without the highlighting markup that some providers leave in; a stranger's thumbnail is dropped."""
    title, snippet = (" ".join(html.unescape(_TAG.sub("", part)).split()) for part in (result.title, result.snippet))
    return SearchResult(title, snippet, result.url, score=result.score)
