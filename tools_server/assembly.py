"""The server's settings: every value with its default, and the service that a config describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from aiohttp import web

from mmsearch_jax.core.chat_client import ChatClient, ChatEndpoint
from mmsearch_jax.core.config_files import secret
from mmsearch_jax.core.errors import ConfigError
from tools_server.backends import local
from tools_server.backends.base import Backend
from tools_server.backends.providers import IMAGE, TEXT, Provider
from tools_server.backends.upstream import Sessions
from tools_server.backends.web import ImagePublisher, WebImage, WebText
from tools_server.cache.cache import Cache
from tools_server.cache.redis_store import RedisStore
from tools_server.cache.store import SqliteStore, Store
from tools_server.condense import Condenser
from tools_server.fetch.choose_reader import default_reader, make_reader, reader_identity
from tools_server.grounders import choose_grounder as grounders
from tools_server.limits.budget import RunBudget
from tools_server.limits.guarded import BackendLimits, Chain, Guarded
from tools_server.publishers.blobs import BlobPublisher
from tools_server.publishers.choose_publisher import default_publisher, make_publisher
from tools_server.service import Parts, SearchService, ServiceLimits
from tools_server.work_pool import WorkPool

SUMMARISERS = ("none", "extract", "model")


def default_config() -> ml_collections.ConfigDict:
    """A server over a corpus on this machine; configs/tools/*.py change what they need."""
    endpoint = dataclasses.asdict(ChatEndpoint(key_env="SUMMARISER_API_KEY", deadline_s=20.0, max_tokens=600))
    return ml_collections.ConfigDict(
        {
            # Address to listen on, and the environment variable with the token that callers must send ("" lets all in).
            "host": "127.0.0.1",
            "port": 8765,
            "token_env": "",
            # For the backend "local": a folder with pages.jsonl, images.jsonl and the pictures, or an index (`mmsearch index`).
            "corpus": "",
            # Of an index: searched by bm25, dense or both ("": both where it has vectors); its embedder's folder or address, if
            # not as it was built; an index of pictures ("": the corpus's own).
            "local": {"by": "", "embedder": "", "pictures": ""},
            # Backends in the order in which they are tried; their own settings are under `backends`.
            "text": {"backends": (local.NAME,)},
            "image": {"backends": (local.NAME,)},
            "backends": {name: _backend(provider) for name, provider in {**TEXT, **IMAGE}.items()},
            # off, live, record, replay, replay-or-live: see docs/tools_server.md. With an address of Redis, many servers share.
            "cache": {
                "mode": "off",
                "path": "runs/tools/cache.sqlite",
                "redis_url_env": "",
                "ttl_s": 30 * 86400.0,
                "negative_ttl_s": 3600.0,
            },
            # The pages of a text search that are read, and where an image goes that a provider wants to fetch.
            "reader": default_reader(),
            "publisher": default_publisher(),
            # What this run may spend on web searches; 0 is no bound. Another name of the run starts from nothing.
            "budget": {"run": "default", "max_calls": 0, "max_usd": 0.0},
            # none: results as they are; extract: their best sentences; model: an LLM's summary, sentences where it fails.
            "summariser": {"kind": "none", "max_chars": 2400, **endpoint},
            # embedded, grounding_dino, onnx, http or chat: finds what an expression means (docs/tools_server.md).
            "grounder": grounders.default_settings(),
            "limits": dataclasses.asdict(ServiceLimits()),
        }
    )


def _backend(provider: Provider) -> dict[str, Any]:
    limits = dataclasses.asdict(BackendLimits(calls_per_s=provider.calls_per_s))
    return {"url": provider.url, "key_env": provider.key_env, "cost_usd": provider.cost_usd, **limits}


@dataclasses.dataclass
class Assembly:
    """What a config comes to before its corpus is read: cheap, so that a wrong config is said at once.

    Attributes:
      load: reads the corpus and makes the service; slow, and to be called in the server's start.
      add_routes: further public routes, or None.
    """

    limits: ServiceLimits
    token: str
    load: Callable[[], SearchService]
    add_routes: Callable[[web.Application], None] | None = None


def assemble(config: ml_collections.ConfigDict) -> Assembly:
    """Checks a config and prepares its server.

    Raises:
      ConfigError: a name that is not known, a key that is not in the environment, a value out of range; names it.
      DataError: the corpus or the cache cannot be used.
    """
    limits = ServiceLimits(**config.limits)
    token = secret(config.token_env, "config.token_env")
    sessions, publisher = Sessions(), make_publisher(config.publisher)
    names = [*config.text.backends, *config.image.backends]
    text = [_web(config, name, TEXT, "text", sessions, None) for name in _others(config.text.backends)]
    image = [_web(config, name, IMAGE, "image", sessions, publisher) for name in _others(config.image.backends)]
    if local.NAME in names and not config.corpus:
        raise ConfigError(
            "the backend 'local' needs a corpus: --corpus DIR, or name web backends in config.text.backends"
        )
    condenser, reader = _condenser(config), make_reader(config.reader)
    make_grounder = grounders.prepare(config.grounder, sessions)
    uses_store = bool(text or image) or config.cache.mode != "off"
    store = _store(config) if uses_store else None

    def load() -> SearchService:
        pool = WorkPool(limits.num_threads, limits.max_waiting)
        corpus = _corpus(config) if local.NAME in names else None
        budget = RunBudget(store, **config.budget) if store is not None else None

        def chain(names: Sequence[str], of_web: Sequence[Backend[Any]], of_corpus: Any) -> Chain[Any]:
            made = {backend.name: backend for backend in of_web}
            backends = [of_corpus(corpus, pool) if name == local.NAME else made[name] for name in names]
            return Chain([_guarded(config, backend, budget) for backend in backends])

        own = config.cache
        cache = Cache(store, own.mode, own.ttl_s, own.negative_ttl_s, 2 * limits.deadline_s)
        parts = Parts(
            chain(config.text.backends, text, local.LocalText),
            chain(config.image.backends, image, local.LocalImage),
            make_grounder(pool),
            cache,
            budget,
            pool,
            identity_of(config, corpus),
            reader,
            config.reader.num_pages,
            condenser,
        )
        parts.closers = [parts.grounder.close, sessions.close]
        if reader is not None:
            parts.closers.append(reader.close)
        if condenser is not None:
            parts.closers.append(condenser.close)
        if store is not None:
            parts.closers.append(store.close)
        if corpus is not None:
            parts.closers.append(corpus.close)
        return SearchService(parts, limits)

    return Assembly(limits, token, load, publisher.add_routes if isinstance(publisher, BlobPublisher) else None)


def open_store(config: ml_collections.ConfigDict) -> Store:
    """The store that a config names, for export and import.

    Raises:
      ConfigError, DataError: as `assemble`.
    """
    return _store(config)


def _corpus(config: ml_collections.ConfigDict) -> local.Corpus:
    own = config.local
    pictures = Path(own.pictures) if own.pictures else None
    return local.Corpus(Path(config.corpus), pictures, own.by, own.embedder, config.limits.deadline_s)


def _others(names: Any) -> list[str]:
    return [name for name in names if name != local.NAME]


def _web(
    config: ml_collections.ConfigDict,
    name: str,
    table: dict[str, Provider],
    kind: str,
    sessions: Sessions,
    publisher: ImagePublisher | None,
) -> Any:
    if name not in table:
        known = ", ".join([local.NAME, *table])
        raise ConfigError(f"config.{kind}.backends names '{name}', known are {known}")
    own = config.backends[name]
    if not own.calls_per_s > 0 or own.max_concurrency < 1 or own.max_attempts < 1:
        raise ConfigError(f"config.backends.{name}: calls_per_s, max_concurrency and max_attempts must be above 0")
    if table is TEXT:
        return WebText(name, sessions, own.url, own.key_env, own.cost_usd)
    return WebImage(name, sessions, own.url, own.key_env, own.cost_usd, publisher)


def _guarded(config: ml_collections.ConfigDict, backend: Backend[Any], budget: RunBudget | None) -> Guarded[Any]:
    if backend.name == local.NAME or budget is None:
        # Its threads are its limit, and it is free.
        unlimited = BackendLimits(1e6, 1_000_000, config.limits.deadline_s, 1, breaker_window=0)
        return Guarded(backend, unlimited, None)
    own = config.backends[backend.name]
    settings = {field.name: own[field.name] for field in dataclasses.fields(BackendLimits)}
    return Guarded(backend, BackendLimits(**settings), budget)


def _condenser(config: ml_collections.ConfigDict) -> Condenser | None:
    own = config.summariser
    if own.kind not in SUMMARISERS:
        raise ConfigError(f"config.summariser.kind is '{own.kind}', must be one of {', '.join(SUMMARISERS)}")
    if own.kind == "none":
        return None
    if own.kind == "extract":
        return Condenser(None, own.max_chars)
    if not own.url or not own.model:
        raise ConfigError(
            "config.summariser.kind is 'model': set config.summariser.url (up to /v1) and config.summariser.model"
        )
    endpoint = ChatEndpoint(**{field.name: own[field.name] for field in dataclasses.fields(ChatEndpoint)})
    return Condenser(ChatClient(endpoint, "summariser", "summary"), own.max_chars)


def _store(config: ml_collections.ConfigDict) -> Store:
    own = config.cache
    if own.redis_url_env:
        ttl_s = own.ttl_s if own.mode == "live" else 0.0
        return RedisStore(secret(own.redis_url_env, "config.cache.redis_url_env"), ttl_s=ttl_s)
    return SqliteStore(own.path)


def identity_of(config: ml_collections.ConfigDict, corpus: local.Corpus | None = None) -> dict[str, Any]:
    """What decides answers, by kind of search: part of every key in the cache.

    Args:
      corpus: of the backend "local", where it is named.
    """
    own = config.summariser
    condensed = {"summariser": own.kind, "model": own.model, "max_chars": own.max_chars} if own.kind != "none" else {}
    own_text, own_image = (corpus.identity[kind] if corpus is not None else {} for kind in ("text", "image"))
    return {
        "text": {"backends": list(config.text.backends), **reader_identity(config.reader), **own_text, **condensed},
        "image": {
            "backends": list(config.image.backends),
            "grounder": grounders.identity(config.grounder),
            **own_image,
            **condensed,
        },
    }
