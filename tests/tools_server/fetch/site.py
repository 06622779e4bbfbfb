"""A web site on a loopback port with scripted answers, and a listener that only counts connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Answers every path with `handler`; records the requests."""

    def __init__(self, handler: Handler):
        self._handler = handler
        self.requests: list[web.Request] = []
        self.in_flight = self.peak = self.port = 0

    async def __aenter__(self) -> Site:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def allow(self) -> list[str]:
        """The one entry of an allow list that opens this site."""
        return [f"127.0.0.1:{self.port}"]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._handler(request)
        finally:
            self.in_flight -= 1


@contextlib.asynccontextmanager
async def raw_site(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A raw TCP server: `answer` writes any bytes after a request has arrived. Yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[int]]]:
    """A port of this machine that must not be reached, and a list that grows with each connection (IPv4 and IPv6)."""
    connections: list[int] = []

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        writer.close()

    four = await asyncio.start_server(count, "127.0.0.1", 0)
    port = four.sockets[0].getsockname()[1]
    servers = [four]
    with contextlib.suppress(OSError):  # a machine without IPv6
        servers.append(await asyncio.start_server(count, "::1", port))
    try:
        yield port, connections
    finally:
        for server in servers:
            server.close()
