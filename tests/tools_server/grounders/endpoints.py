"""A web server on a free loopback port with scripted answers for one route; it records its requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


class Endpoint:
    """The recorded requests, and the endpoint's address."""

    def __init__(self, url: str):
        self.url = url
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []


@asynccontextmanager
async def endpoint(route: str, answer: Callable[[int], Any]) -> AsyncIterator[Endpoint]:
    """Serves for the duration of the block.

    Args:
      answer: call number n (from 0) -> the JSON to send, a status and the JSON, or "hang".
    """
    made = Endpoint("")
    stop = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        made.bodies.append(await request.json())
        made.headers.append(dict(request.headers))
        said = answer(len(made.bodies) - 1)
        if said == "hang":
            await stop.wait()
            return web.Response()
        status, body = said if isinstance(said, tuple) else (200, said)
        return web.json_response(body, status=status)

    app = web.Application(client_max_size=32 * 2**20)
    app.router.add_post(route, handle)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made
        stop.set()
