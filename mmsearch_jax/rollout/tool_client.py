"""The HTTP client of the search server: one deadline per call that all retries share, and typed failures.

It knows the schema in `protocol` and nothing of episodes. The transport can be swapped, so tests need no
socket.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp
import tenacity

from mmsearch_jax import protocol
from mmsearch_jax.errors import DataError, ToolFailed, ToolTimeout, ToolUnavailable
from mmsearch_jax.protocol import SearchReply


class Transport(Protocol):
    """Moves one JSON object to a route and one back."""

    async def request(self, method: str, route: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        """Returns the HTTP status and the decoded body.

        Raises:
          ConnectionError: no answer came (refused, reset, not HTTP).
        """
        ...

    async def close(self) -> None:
        """Frees what the transport holds; it may be used again afterwards."""
        ...


class HttpTransport:
    """A keep-alive HTTP connection pool to `base_url`."""

    def __init__(self, base_url: str, max_connections: int = 64):
        self._base_url = base_url.rstrip("/")
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(self, method: str, route: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        """See `Transport.request`."""
        session = self._open()
        try:
            async with session.request(method, self._base_url + route, json=body) as response:
                if response.content_type != "application/json":
                    return response.status, await response.text()
                return response.status, await response.json()
        except (aiohttp.ClientError, ValueError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Closes the pool; the next request opens another."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=self._max_connections)
            # No timeout here: the client's deadline covers the whole call.
            timeout = aiohttp.ClientTimeout(total=None)
            self._session, self._loop = aiohttp.ClientSession(connector=connector, timeout=timeout), loop
        return self._session


class _Retry(Exception):
    """A failure that may pass: worth another attempt before the deadline."""


class ToolClient:
    """Calls the search server.

    Args:
      base_url: for example "http://127.0.0.1:8123".
      deadline_s: seconds for one call, retries included; waiting for a free connection is not counted.
      max_retries: further attempts after the first one failed for a reason that may pass (no connection,
        overload, an internal error).
      max_concurrency: calls in flight at once.
      transport: replaces HTTP.
    """

    def __init__(
        self,
        base_url: str,
        deadline_s: float = 30.0,
        max_retries: int = 3,
        max_concurrency: int = 32,
        transport: Transport | None = None,
    ):
        self.base_url, self.deadline_s, self.max_retries = base_url, deadline_s, max_retries
        self._max_concurrency = max_concurrency
        self._transport = transport or HttpTransport(base_url, max_concurrency)
        self._gate: asyncio.Semaphore | None = None
        self._gate_loop: asyncio.AbstractEventLoop | None = None

    async def text_search(self, query: str, top_k: int = 5) -> SearchReply:
        """Searches pages.

        Raises:
          ToolUnavailable: nothing answers at `base_url`.
          ToolTimeout: the deadline passed.
          ToolFailed: the server refused the request or broke, or its answer cannot be read.
        """
        return await self._search(protocol.ROUTE_TEXT_SEARCH, protocol.TextSearchRequest(query, top_k))

    async def image_search(self, image: bytes, expression: str | None = None, top_k: int = 5) -> SearchReply:
        """Searches by an encoded image (JPEG, PNG, ...), or by the crop of it that `expression` refers to.

        Raises:
          ToolUnavailable, ToolTimeout, ToolFailed: as `text_search`.
        """
        encoded = base64.b64encode(image).decode()
        request = protocol.ImageSearchRequest(encoded, expression, top_k)
        return await self._search(protocol.ROUTE_IMAGE_SEARCH, request)

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Waits until the server says that it is ready.

        Raises:
          ToolUnavailable: it did not within `timeout_s`.
        """
        give_up, why = time.monotonic() + timeout_s, "no answer"
        while (left := give_up - time.monotonic()) > 0:
            try:
                request = self._transport.request("GET", protocol.ROUTE_READY, None)
                status, _ = await asyncio.wait_for(request, left)
                if status == 200:
                    return
                why = f"HTTP {status}"
            except (ConnectionError, TimeoutError) as error:
                why = str(error) or why
            await asyncio.sleep(min(0.1, max(0.0, give_up - time.monotonic())))
        raise ToolUnavailable(self._down(f"not ready after {timeout_s:g} s ({why})"))

    async def close(self) -> None:
        """Closes connections; a later call opens them again."""
        await self._transport.close()

    async def _search(
        self, route: str, request: protocol.TextSearchRequest | protocol.ImageSearchRequest
    ) -> SearchReply:
        body = request.to_json()
        async with self._slot():
            try:
                async with asyncio.timeout(self.deadline_s):
                    return await self._attempts(route, body)
            except TimeoutError as error:
                raise ToolTimeout(
                    f"{self.base_url}{route}: no answer within {self.deadline_s:g} s; "
                    "raise the tool deadline or lower the load"
                ) from error

    async def _attempts(self, route: str, body: Mapping[str, Any]) -> SearchReply:
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.max_retries + 1),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            retry=tenacity.retry_if_exception_type((_Retry, ConnectionError)),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return self._read(route, *await self._transport.request("POST", route, body))
        except ConnectionError as error:
            raise ToolUnavailable(self._down(str(error))) from error
        except _Retry as error:
            raise ToolFailed(f"{error} ({self.max_retries + 1} attempts)") from error
        raise AssertionError("tenacity re-raises the last failure")

    def _read(self, route: str, status: int, body: Any) -> SearchReply:
        if status == 200:
            try:
                return SearchReply.from_json(body)
            except DataError as error:
                raise ToolFailed(f"{self.base_url}{route}: unreadable answer: {error}") from error
        try:
            reply = protocol.ErrorReply.from_json(body)
        except DataError:
            reply = protocol.ErrorReply("internal" if status >= 500 else "bad_request", str(body)[:200])
        message = f"{self.base_url}{route}: HTTP {status} {reply.code}: {reply.message}"
        raise _Retry(message) if status >= 500 or status == 429 else ToolFailed(message)

    def _slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate_loop is not loop:
            self._gate, self._gate_loop = asyncio.Semaphore(self._max_concurrency), loop
        return self._gate

    def _down(self, why: str) -> str:
        return f"no search server at {self.base_url}: {why}; start one with `mmsearch serve-tools`"
