"""The HTTP face of the search tools: routes, limits and typed errors. What a search does is the indexes'
business.

Work on pixels and pages runs in a small thread pool, so the event loop always answers; when too much waits, a
request is turned away at once with `overloaded` rather than kept until its caller gives up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from mmsearch_jax import protocol
from mmsearch_jax.errors import DataError
from mmsearch_jax.protocol import ErrorReply, ImageSearchRequest, SearchReply, SearchResult, TextSearchRequest
from tools_server import grounding
from tools_server.image_index import ImageIndex
from tools_server.images import MAX_PIXELS, decode_image
from tools_server.metrics import Metrics
from tools_server.text_index import TextIndex

_log = logging.getLogger("tools_server")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may ask for."""

    max_body_bytes: int = 16 * 2**20
    max_pixels: int = MAX_PIXELS
    max_query_chars: int = 2000
    max_top_k: int = 20
    max_waiting: int = 256
    num_threads: int = 2


class _BadRequest(Exception):
    """The request cannot be served as it is."""


class _Overloaded(Exception):
    """Too many requests wait already."""


class SearchTools:
    """The searches that the routes offer, over one corpus. Blocking; safe to use from several threads.

    Args:
      corpus: folder with `pages.jsonl`, `images.jsonl` and the pictures.

    Raises:
      DataError: the corpus is missing or damaged.
    """

    def __init__(self, corpus: Path, limits: Limits | None = None):
        if not corpus.is_dir():
            raise DataError(f"no corpus at {corpus}: --corpus must name a folder with pages.jsonl and images.jsonl")
        self.limits = limits or Limits()
        self.pages = TextIndex.from_corpus(corpus)
        self.pictures = ImageIndex.from_corpus(corpus)

    def text_search(self, request: TextSearchRequest) -> SearchReply:
        """The best pages for a query."""
        hits = self.pages.search(request.query, request.top_k)
        results = tuple(SearchResult(hit.page.title, hit.snippet, hit.page.url, score=hit.score) for hit in hits)
        return SearchReply(results, tool="text_search")

    def image_search(self, request: ImageSearchRequest) -> SearchReply:
        """The pictures most like the image, or like the region of it that the expression means."""
        image = decode_image(request.image_base64, self.limits.max_pixels)
        found = grounding.Grounding(None)
        if request.expression is not None:
            found = grounding.ground(image, request.expression)
        part = image if found.box is None else image.crop(found.box)
        results = tuple(
            SearchResult(
                picture.title,
                picture.description,
                picture.url,
                self.pictures.thumbnail(picture),
                round(score, 4),
            )
            for picture, score in self.pictures.search(part, request.top_k)
        )
        return SearchReply(results, tool="image_search", box=found.box, grounded=found.box is not None, note=found.note)

    def ground(self, request: ImageSearchRequest) -> SearchReply:
        """Where the expression points, without a search."""
        image = decode_image(request.image_base64, self.limits.max_pixels)
        found = grounding.ground(image, request.expression or "")
        return SearchReply((), tool="ground", box=found.box, grounded=found.box is not None, note=found.note)


def create_app(load: Callable[[], SearchTools], limits: Limits | None = None) -> web.Application:
    """An aiohttp application. The tools are loaded at its start, before it takes requests.

    Args:
      load: makes the tools; called once, off the event loop. If it raises, the application's start fails.
    """
    return _Routes(load, limits or Limits()).application()


class _Routes:
    def __init__(self, load: Callable[[], SearchTools], limits: Limits):
        self._load, self._limits = load, limits
        self._metrics = Metrics()
        self._pool = ThreadPoolExecutor(limits.num_threads, thread_name_prefix="search")
        self._tools: SearchTools | None = None
        self._waiting = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self._limits.max_body_bytes, middlewares=[self._guard])
        app.router.add_get(protocol.ROUTE_HEALTH, self._health)
        app.router.add_get(protocol.ROUTE_READY, self._ready)
        app.router.add_get(protocol.ROUTE_METRICS, self._show_metrics)
        app.router.add_post(protocol.ROUTE_TEXT_SEARCH, self._text_search)
        app.router.add_post(protocol.ROUTE_IMAGE_SEARCH, self._image_search)
        app.router.add_post(protocol.ROUTE_GROUND, self._ground)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, app: web.Application) -> None:
        self._tools = await asyncio.get_running_loop().run_in_executor(self._pool, self._load)

    async def _stop(self, app: web.Application) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)

    # Routes

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ready"})

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self._metrics.render())

    async def _text_search(self, request: web.Request) -> web.Response:
        asked = await self._read(request, TextSearchRequest)
        self._check_text("query", asked.query)
        return await self._answer(lambda tools: tools.text_search(asked))

    async def _image_search(self, request: web.Request) -> web.Response:
        asked = await self._read(request, ImageSearchRequest)
        if asked.expression is not None:
            self._check_text("expression", asked.expression)
        return await self._answer(lambda tools: tools.image_search(asked))

    async def _ground(self, request: web.Request) -> web.Response:
        asked = await self._read(request, ImageSearchRequest)
        self._check_text("expression", asked.expression or "")
        return await self._answer(lambda tools: tools.ground(asked))

    # What routes share

    async def _read(self, request: web.Request, kind: type[_T]) -> _T:
        try:
            body: Any = await request.json()
        except (ValueError, UnicodeDecodeError) as error:
            raise _BadRequest(f"the body is not JSON: {error}") from error
        asked = kind.from_json(body)  # pyright: ignore[reportAttributeAccessIssue]
        if not 1 <= asked.top_k <= self._limits.max_top_k:
            raise _BadRequest(f"top_k is {asked.top_k}, must be 1 to {self._limits.max_top_k}")
        return asked

    def _check_text(self, name: str, text: str) -> None:
        if not text.strip():
            raise _BadRequest(f"{name} is empty")
        if len(text) > self._limits.max_query_chars:
            raise _BadRequest(f"{name} has {len(text)} characters, at most {self._limits.max_query_chars} are taken")

    async def _answer(self, search: Callable[[SearchTools], SearchReply]) -> web.Response:
        tools = self._tools
        assert tools is not None, "requests are taken only after the start"
        if self._waiting >= self._limits.max_waiting:
            raise _Overloaded(f"{self._waiting} searches wait already")
        self._waiting += 1
        started = time.perf_counter()
        try:
            reply = await asyncio.get_running_loop().run_in_executor(self._pool, search, tools)
        finally:
            self._waiting -= 1
        elapsed_ms = round((time.perf_counter() - started) * 1e3, 3)
        return web.json_response(dataclasses.replace(reply, elapsed_ms=elapsed_ms).to_json())

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """Turns every failure into a typed JSON error, and counts the request."""
        started = time.perf_counter()
        self._metrics.in_flight += 1
        try:
            response = await self._guarded(request, handler)
        finally:
            self._metrics.in_flight -= 1
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "other"
        self._metrics.record(route, response.status, (time.perf_counter() - started) * 1e3)
        return response

    async def _guarded(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        try:
            return await handler(request)
        except (_BadRequest, DataError) as error:
            return _error(400, "bad_request", str(error))
        except _Overloaded as error:
            return _error(503, "overloaded", f"{error}: try again later")
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "bad_request", f"the body is larger than {self._limits.max_body_bytes:,} bytes")
        except web.HTTPException as error:
            return _error(error.status, "bad_request", f"{request.method} {request.path}: {error.reason}")
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return _error(500, "internal", "the search failed; the server's log has the cause")


def _error(status: int, code: str, message: str) -> web.Response:
    body = json.dumps(ErrorReply(code, message).to_json(), ensure_ascii=False)
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)
