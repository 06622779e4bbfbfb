"""The service that the settings describe."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from mmsearch_jax.core.chat_client import ChatClient
from tools_server.backends import local
from tools_server.backends.backend import Backend
from tools_server.backends.upstream import Sessions
from tools_server.backends.web import WebImage, WebText
from tools_server.cache.answers import Cache
from tools_server.cache.redis_store import RedisStore
from tools_server.cache.store import SqliteStore, Store
from tools_server.condense import Condenser
from tools_server.fetch.choose_reader import make_reader, reader_identity
from tools_server.grounders import choose_grounder as grounders
from tools_server.limits.guarded import Chain, Guarded
from tools_server.limits.run_budget import RunBudget
from tools_server.publishers.blobs import BlobPublisher
from tools_server.publishers.choose_publisher import make_publisher
from tools_server.search_service import Parts, SearchService
from tools_server.settings.answering import CacheSettings, ServiceLimits, SummariserSettings
from tools_server.settings.server import ServerSettings
from tools_server.settings.sources import LOCAL, BackendLimits, LocalSettings
from tools_server.work_pool import WorkPool


@dataclasses.dataclass
class Assembly:
    """A server before its corpus is read.

    Attributes:
      load: reads the corpus and makes the service; slow, and to be called when the server starts.
      add_routes: further public routes, or None.
    """

    limits: ServiceLimits
    token: str
    load: Callable[[], SearchService]
    add_routes: Callable[[web.Application], None] | None = None


def assemble(settings: ServerSettings) -> Assembly:
    """Prepares the server that the settings describe.

    Raises:
      SettingError: a server with these settings cannot start here; names the setting.
      ConfigError: a library refuses an address.
      DataError: the corpus or the cache cannot be used.
    """
    settings.require_ready()
    limits, sessions, publisher = settings.limits, Sessions(), make_publisher(settings.publisher)
    text = [WebText(name, sessions, settings.backends[name]) for name in settings.web_text]
    image = [WebImage(name, sessions, settings.backends[name], publisher) for name in settings.web_image]
    condenser, reader = _condenser(settings.summariser), make_reader(settings.reader)
    uses_store = bool(text or image) or settings.cache.mode != "off"
    store = open_store(settings.cache) if uses_store else None

    def load() -> SearchService:
        pool = WorkPool(limits.num_threads, limits.max_waiting)
        corpus = _corpus(settings) if settings.searches_corpus else None
        budget = RunBudget(store, settings.budget) if store is not None else None

        def chain(names: Sequence[str], of_web: Sequence[Backend[Any]], of_corpus: Any) -> Chain[Any]:
            made = {backend.name: backend for backend in of_web}
            backends = [of_corpus(corpus, pool) if name == LOCAL else made[name] for name in names]
            return Chain([_guarded(settings, backend, budget) for backend in backends])

        parts = Parts(
            chain(settings.text.backends, text, local.LocalText),
            chain(settings.image.backends, image, local.LocalImage),
            grounders.make_grounder(settings.grounder, sessions, pool),
            Cache(store, settings.cache, call_s=2 * limits.deadline_s),
            budget,
            pool,
            identity_of(settings, corpus),
            reader,
            settings.reader.num_pages,
            condenser,
            settings.local.extract_chars,
        )
        parts.closers = [parts.grounder.close, sessions.close]
        parts.closers += [part.close for part in (reader, condenser, store, corpus) if part is not None]
        return SearchService(parts, limits)

    token = os.environ[settings.token_env] if settings.token_env else ""
    return Assembly(limits, token, load, publisher.add_routes if isinstance(publisher, BlobPublisher) else None)


def open_store(settings: CacheSettings) -> Store:
    """The store of answers and of the budget.

    Raises:
      SettingError: the environment variable or the package of Redis is missing.
      ConfigError: Redis' address cannot be read.
      DataError: the file cannot be used.
    """
    settings.require_ready("cache")
    if settings.redis_url_env:
        return RedisStore(os.environ[settings.redis_url_env], ttl_s=settings.ttl_s if settings.mode == "live" else 0.0)
    return SqliteStore(settings.path)


def identity_of(settings: ServerSettings, corpus: local.Corpus | None = None) -> dict[str, Any]:
    """What decides answers, by kind of search: part of every key in the cache.

    Args:
      corpus: of the backend "local", if it is used.
    """
    own = settings.summariser
    condensed = {"summariser": own.kind, "model": own.model, "max_chars": own.max_chars} if own.kind != "none" else {}
    own_text, own_image = (corpus.identity[kind] if corpus is not None else {} for kind in ("text", "image"))
    if corpus is not None and (own_text or settings.local.extract_chars != LocalSettings().extract_chars):
        own_text = {**own_text, "extract_chars": settings.local.extract_chars}
    return {
        "text": {"backends": list(settings.text.backends), **reader_identity(settings.reader), **own_text, **condensed},
        "image": {
            "backends": list(settings.image.backends),
            "grounder": grounders.identity(settings.grounder),
            **own_image,
            **condensed,
        },
    }


def _corpus(settings: ServerSettings) -> local.Corpus:
    own = settings.local
    pictures = Path(own.pictures) if own.pictures else None
    return local.Corpus(Path(settings.corpus), pictures, own.by, own.embedder, settings.limits.deadline_s)


def _guarded(settings: ServerSettings, backend: Backend[Any], budget: RunBudget | None) -> Guarded[Any]:
    if backend.name == LOCAL or budget is None:
        # Its threads are its limit, and it is free.
        unlimited = BackendLimits(1e6, 1_000_000, settings.limits.deadline_s, 1, breaker_window=0)
        return Guarded(backend, unlimited, None)
    return Guarded(backend, settings.backends[backend.name], budget)


def _condenser(settings: SummariserSettings) -> Condenser | None:
    if settings.kind == "none":
        return None
    chat = ChatClient(settings, "summariser", "summary") if settings.kind == "model" else None
    return Condenser(chat, settings.max_chars)
