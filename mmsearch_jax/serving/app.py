"""The HTTP layer of the chat server: routes, bearer token, errors in OpenAI's format, server-sent events."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.http_serving import has_token, read_body
from mmsearch_jax.serving.completion import Completion
from mmsearch_jax.serving.requests import ApiError, ChatRequest, read_request
from mmsearch_jax.serving.service import Service
from mmsearch_jax.serving.wire import Reply

ROUTE_CHAT, ROUTE_MODELS, ROUTE_METRICS = "/v1/chat/completions", "/v1/models", "/metrics"
ROUTES_HEALTH = ("/healthz", "/health")
"""The second is vLLM's, which clients and balancers ask for."""
_RETRY_S = 1
_log = logging.getLogger("mmsearch_jax.serving")


def create_app(service: Service, token: str = "") -> web.Application:
    """An aiohttp application. Its runner must set `handler_cancellation`: disconnected clients then free their slots.

    Args:
      token: the token that callers send as `Authorization: Bearer ...`; "" accepts every caller.
    """
    routes = _Routes(service, token)
    app = web.Application(client_max_size=service.limits.max_body_bytes, middlewares=[routes.guard])
    for route in ROUTES_HEALTH:
        app.router.add_get(route, routes.health)
    app.router.add_get(ROUTE_METRICS, routes.metrics)
    app.router.add_get(ROUTE_MODELS, routes.models)
    app.router.add_get(ROUTE_MODELS + "/{name:.+}", routes.model)
    app.router.add_post(ROUTE_CHAT, routes.chat)
    return app


class _Routes:
    def __init__(self, service: Service, token: str):
        self._service, self._token = service, token
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mmsearch_serve_requests", "Requests by route and status", ("route", "status"), registry=self._registry
        )
        self._tokens = Counter(
            "mmsearch_serve_tokens", "Tokens of finished requests by kind", ("kind",), registry=self._registry
        )
        for name in service.load():
            gauge = Gauge(f"mmsearch_serve_{name}", f"The load's '{name}', as in /healthz", registry=self._registry)
            gauge.set_function(functools.partial(lambda name: service.load()[name], name))

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Checks the token, counts the request, and converts every failure to OpenAI's format."""
        response = await self._answer(request, handler)
        route = request.match_info.route.resource
        self._requests.labels(route.canonical if route is not None else "unknown", str(response.status)).inc()
        return response

    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if request.path not in ROUTES_HEALTH:
                self._check_token(request)
            return await handler(request)
        except ApiError as error:
            return _error(error)
        except web.HTTPRequestEntityTooLarge:
            most = self._service.limits.max_body_bytes
            return _error(ApiError(413, f"the body is larger than {most} bytes: send smaller images", code="too_large"))
        except web.HTTPException as error:
            return _error(
                ApiError(error.status, f"{request.method} {request.path}: {error.reason}", code="unknown_url")
            )
        except ConnectionError:
            raise  # The client has disconnected, so no reply is possible.
        except Exception:
            _log.exception("%s %s", request.method, request.path)
            return _error(ApiError(500, "internal error; see the server's log", kind="server_error"))

    def _check_token(self, request: web.Request) -> None:
        if self._token and not has_token(request, self._token):
            raise ApiError(401, "wrong or missing token: send it as Authorization: Bearer ...", code="invalid_api_key")

    async def health(self, request: web.Request) -> web.Response:
        """Reports whether the engine works, and its load."""
        failed = self._service.failure is not None
        body = {"status": "failed" if failed else "ok", **self._service.load()}
        return web.json_response(body, status=503 if failed else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        """Counters and load, in the format of Prometheus."""
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def models(self, request: web.Request) -> web.Response:
        """Lists the models."""
        return web.json_response({"object": "list", "data": [_model(name) for name in self._service.models]})

    async def model(self, request: web.Request) -> web.Response:
        """Describes one model."""
        name = request.match_info["name"]
        if name not in self._service.models:
            raise ApiError(404, f"no model '{name}' on this server", param="model", code="model_not_found")
        return web.json_response(_model(name))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answers a chat completion request."""
        asked = read_request(await _json(request))
        reply = Reply(asked.model, asked.logprobs)
        async with self._service.complete(asked) as completion:
            try:
                if asked.stream:
                    return await _stream(request, asked, completion, reply)
                deltas = [delta async for delta in completion.deltas()]
                return web.json_response(reply.whole(deltas, completion.usage, asked.n))
            finally:
                self._tokens.labels("prompt").inc(completion.usage.prompt)
                self._tokens.labels("sampled").inc(completion.usage.sampled)


async def _stream(request: web.Request, asked: ChatRequest, completion: Completion, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)

    async def send(event: dict[str, Any]) -> None:
        await response.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())

    # The status is sent: from here on an error can only be sent as an event. A disconnected client is not an error.
    with contextlib.suppress(ConnectionError):
        await send(reply.opening(asked.n))
        try:
            async for delta in completion.deltas():
                await send(reply.chunk(delta))
        except ApiError as error:
            await send(error.to_json())
        else:
            if asked.include_usage:
                await send(reply.closing(completion.usage))
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
    return response


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await read_body(request))
    except DataError as error:
        raise ApiError(400, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "mmsearch-jax"}


def _error(error: ApiError) -> web.Response:
    headers = {"Retry-After": str(_RETRY_S)} if error.status in (429, 503) else None
    return web.json_response(error.to_json(), status=error.status, headers=headers)
