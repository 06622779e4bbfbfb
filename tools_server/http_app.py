"""The search tools over HTTP: routes, checks and typed errors. What a search does is in `search_service`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.http_serving import has_token, read_body
from mmsearch_jax.core.search_api import (
    ERRORS,
    ErrorReply,
    ImageSearchRequest,
    SearchReply,
    TextSearchRequest,
    fit_text,
)
from tools_server import http_schema as schema
from tools_server.failures import SearchFailure
from tools_server.metrics import CONTENT_TYPE, Metrics
from tools_server.search_service import SearchService
from tools_server.settings.answering import ServiceLimits

_log = logging.getLogger("tools_server")
_T = TypeVar("_T", TextSearchRequest, ImageSearchRequest)
_OPEN_ROUTES = (search_api.ROUTE_HEALTH, search_api.ROUTE_READY)


def create_app(
    load: Callable[[], SearchService],
    limits: ServiceLimits | None = None,
    token: str = "",
    add_routes: Callable[[web.Application], None] | None = None,
) -> web.Application:
    """An aiohttp application. The service is loaded when it starts, before it accepts requests.

    Args:
      load: makes the service; called once, off the event loop. If it raises, the application's start fails.
      token: what callers must send as `Authorization: Bearer ...`; "" accepts every caller.
      add_routes: adds further routes, which need no token.
    """
    return _Routes(load, limits or ServiceLimits(), token, add_routes).application()


class _Routes:
    def __init__(
        self,
        load: Callable[[], SearchService],
        limits: ServiceLimits,
        token: str,
        add_routes: Callable[[web.Application], None] | None,
    ):
        self._load, self._limits, self._token, self._add_routes = load, limits, token, add_routes
        self._metrics = Metrics()
        self._service: SearchService | None = None
        self._public: set[str] = set(_OPEN_ROUTES)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self._limits.max_body_bytes, middlewares=[self._guard])
        if self._add_routes is not None:
            self._add_routes(app)
            self._public |= {resource.canonical for resource in app.router.resources()}
        app.router.add_get(search_api.ROUTE_HEALTH, self._health)
        app.router.add_get(search_api.ROUTE_READY, self._ready)
        app.router.add_get(search_api.ROUTE_METRICS, self._show_metrics)
        app.router.add_get(search_api.ROUTE_OPENAPI, self._openapi)
        self._add(app, search_api.ROUTE_TEXT_SEARCH, TextSearchRequest, self._text_search)
        self._add(app, search_api.ROUTE_IMAGE_SEARCH, ImageSearchRequest, self._image_search)
        self._add(app, search_api.ROUTE_GROUND, ImageSearchRequest, self._ground)
        app.router.add_post(search_api.ROUTE_IMAGES, self._keep_image)
        app.router.add_post(search_api.ROUTE_RETRIEVE, self._retrieve)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, app: web.Application) -> None:
        self._service = await asyncio.get_running_loop().run_in_executor(None, self._load)

    async def _stop(self, app: web.Application) -> None:
        await self._tools.close()

    @property
    def _tools(self) -> SearchService:
        assert self._service is not None, "requests are accepted only after the start"
        return self._service

    # Routes

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        parts = self._tools.parts
        backends = [*parts.text.backends, *parts.image.backends]
        ready: dict[str, Any] = {
            "status": "ready",
            "cache": parts.cache.mode,
            "limits": self._limits.of_requests.to_json(),
            "backends": {backend.name: backend.breaker.state for backend in backends},
        }
        if parts.budget is not None:
            ready["budget"] = await parts.budget.status()
        return web.json_response(ready)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        spent = await self._tools.parts.budget.status() if self._tools.parts.budget is not None else None
        page = self._metrics.render(self._tools.parts, spent)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(schema.openapi(self._limits))

    async def _text_search(self, asked: TextSearchRequest) -> SearchReply:
        self._check_text("query", asked.query)
        _check_encodable("question", asked.question)
        return await self._tools.text_search(asked)

    async def _image_search(self, asked: ImageSearchRequest) -> SearchReply:
        if asked.expression is not None and asked.box is None:
            self._check_text("expression", asked.expression)
        return await self._tools.image_search(asked)

    async def _ground(self, asked: ImageSearchRequest) -> SearchReply:
        self._check_text("expression", asked.expression or "")
        return await self._tools.ground(asked)

    async def _keep_image(self, request: web.Request) -> web.Response:
        data = await read_body(request)
        if not data:
            raise DataError("the body is empty: send the encoded image itself")
        return web.json_response({"image_id": self._tools.keep_image(data)})

    async def _retrieve(self, request: web.Request) -> web.Response:
        """Search-R1's retriever: `{"queries": [...], "topk": 3, "return_scores": true}`."""
        body = await _json(request)
        queries, top_k, scores = schema.read_retrieve(body)
        self._checked(TextSearchRequest("", top_k))
        found: dict[str, list[dict[str, Any]]] = {}
        asked = list(dict.fromkeys(fit_text(_encodable(query), self._limits.max_query_chars) for query in queries))
        # A batch holds thousands of queries; no more wait for the threads at a time than one batch request may hold.
        for start in range(0, len(asked), self._limits.max_batch):
            part = asked[start : start + self._limits.max_batch]
            replies = await asyncio.gather(*(self._whole_passages(query, top_k) for query in part))
            found |= {query: schema.documents(reply, scores) for query, reply in zip(part, replies, strict=True)}
        fitted = [fit_text(_encodable(query), self._limits.max_query_chars) for query in queries]
        return web.json_response({"result": [found[query] for query in fitted]})

    async def _whole_passages(self, query: str, top_k: int) -> SearchReply:
        if not query:
            return SearchReply((), "text_search", status="no_results")
        return await self._tools.text_search(TextSearchRequest(query, top_k), whole=True)

    # What routes share

    def _add(
        self, app: web.Application, route: str, kind: type[_T], search: Callable[[_T], Awaitable[SearchReply]]
    ) -> None:
        app.router.add_post(route, self._one(kind, search))
        app.router.add_post(route + search_api.BATCH, self._batch(kind, search))

    def _one(self, kind: type[_T], search: Callable[[_T], Awaitable[SearchReply]]) -> Any:
        async def handle(request: web.Request) -> web.Response:
            asked = self._checked(kind.from_json(await _json(request)))
            return web.json_response((await self._timed(asked, search)).to_json())

        return handle

    def _batch(self, kind: type[_T], search: Callable[[_T], Awaitable[SearchReply]]) -> Any:
        async def one(body: Any) -> dict[str, Any]:
            try:
                return (await self._timed(self._checked(kind.from_json(body)), search)).to_json()
            except SearchFailure as failure:
                return ErrorReply(failure.code, failure.message).to_json()
            except DataError as error:
                return ErrorReply("bad_request", str(error)).to_json()

        async def handle(request: web.Request) -> web.Response:
            body = await _json(request)
            asked = body.get("requests") if isinstance(body, dict) else None
            if not isinstance(asked, list) or not 1 <= len(asked) <= self._limits.max_batch:
                raise DataError(f"'requests' must be a list of 1 to {self._limits.max_batch} requests")
            return web.json_response({"replies": await asyncio.gather(*(one(item) for item in asked))})

        return handle

    async def _timed(self, asked: _T, search: Callable[[_T], Awaitable[SearchReply]]) -> SearchReply:
        started = time.perf_counter()
        reply = await search(asked)
        return dataclasses.replace(reply, elapsed_ms=round((time.perf_counter() - started) * 1e3, 3))

    def _checked(self, asked: _T) -> _T:
        if not 1 <= asked.top_k <= self._limits.max_top_k:
            raise DataError(f"top_k is {asked.top_k}, must be 1 to {self._limits.max_top_k}")
        if asked.deadline_s is not None and not asked.deadline_s > 0:
            raise DataError(f"deadline_s is {asked.deadline_s}, must be above 0")
        return asked

    def _check_text(self, name: str, text: str) -> None:
        if not text.strip():
            raise DataError(f"{name} is empty")
        if len(text) > self._limits.max_query_chars:
            raise DataError(f"{name} has {len(text)} characters, at most {self._limits.max_query_chars} are accepted")
        _check_encodable(name, text)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """Turns every failure into a typed JSON error, and counts the request."""
        started = time.perf_counter()
        with self._metrics.in_flight.track_inprogress():
            response = await self._guarded(request, handler)
        self._metrics.record(_route(request) or "other", response.status, (time.perf_counter() - started) * 1e3)
        return response

    async def _guarded(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        try:
            if not self._admitted(request):
                return _error(401, "not_authorised", "send the server's token as 'Authorization: Bearer TOKEN'")
            return await handler(request)
        except DataError as error:
            return _error(400, "bad_request", str(error))
        except SearchFailure as failure:
            if failure.code == "internal":
                _log.error("%s %s failed: %s", request.method, request.path, failure.message)
            return _error(ERRORS[failure.code], failure.code, failure.message, failure.retry_after_s)
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "bad_request", f"the body is larger than {self._limits.max_body_bytes:,} bytes")
        except web.HTTPException as error:
            return _error(
                error.status, "bad_request", f"{request.method} {request.path}: {error.reason}", headers=error.headers
            )
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return _error(500, "internal", "the search failed; the server's log has the cause")

    def _admitted(self, request: web.Request) -> bool:
        if not self._token or _route(request) in self._public:
            return True
        return has_token(request, self._token)


def _route(request: web.Request) -> str | None:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else None


def _check_encodable(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name} contains a lone surrogate at {error.start}") from error


def _encodable(text: str) -> str:
    """The text with half characters replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


async def _json(request: web.Request) -> Any:
    try:
        return json.loads((await read_body(request)).decode(request.charset or "utf-8"))
    except (ValueError, RecursionError, LookupError) as error:  # LookupError: unknown charset
        raise DataError(f"the body is not JSON: {error}") from error


def _error(status: int, code: str, message: str, retry_after_s: float = 0.0, headers: Any = None) -> web.Response:
    body = json.dumps(ErrorReply(code, message).to_json())
    kept = {name: headers[name] for name in ("Allow",) if headers is not None and name in headers}
    if retry_after_s > 0:
        kept["Retry-After"] = str(max(1, round(retry_after_s)))
    return web.Response(status=status, text=body, content_type="application/json", headers=kept or None)
