"""The HTTP client of the search server: one deadline per call that all retries share, and typed failures.

It knows the schema in `core.search_api` and does not depend on episodes. The transport can be replaced, so that tests need no
socket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import tenacity

from mmsearch_jax.core import search_api
from mmsearch_jax.core.characters import whole_characters
from mmsearch_jax.core.errors import DataError, ImageError, ToolFailed, ToolRefused, ToolTimeout, ToolUnavailable
from mmsearch_jax.core.protocol import ImageSearch, TextSearch
from mmsearch_jax.core.search_api import RequestLimits, SearchReply
from mmsearch_jax.rollout.request_fitting import FittedImage, fit_image, fit_query

Request = search_api.TextSearchRequest | search_api.ImageSearchRequest
_DOWN_S = 2.0
"""How long a server that does not answer is skipped."""


class Transport(Protocol):
    """Sends one JSON object to a route and returns the JSON reply."""

    async def request(self, method: str, route: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        """Returns the HTTP status and the decoded body.

        Raises:
          ConnectionError: there was no answer (refused, reset, not HTTP).
        """
        ...

    async def close(self) -> None:
        """Closes the transport; a later request opens it again."""
        ...


class Tools(Protocol):
    """The tools of an episode: the search server's client, or a replacement."""

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        """Searches pages."""
        ...

    async def image_search(self, image: bytes, expression: str | None = None, top_k: int = 5) -> SearchReply:
        """Searches by an image or a crop of it."""
        ...


async def call_tool(
    tools: Tools, action: TextSearch | ImageSearch, top_k: int, question: str, image: bytes
) -> SearchReply:
    """Makes the tool call of an action. What the server refuses (HTTP 400) is an answer that the policy reads, not a failure.

    Raises:
      ToolError: the call returned no result.
    """
    try:
        if isinstance(action, TextSearch):
            return await tools.text_search(action.query, top_k, question)
        return await tools.image_search(image, action.expression, top_k)
    except ToolRefused as refused:
        tool = "text_search" if isinstance(action, TextSearch) else "image_search"
        return SearchReply((), tool, status="refused", note=f"The search was refused: {refused.why}")


class HttpTransport:
    """A keep-alive HTTP connection pool to `base_url`.

    Args:
      token: the bearer token that the server expects; "" if it expects none.
    """

    def __init__(self, base_url: str, max_connections: int = 64, token: str = ""):
        self._base_url = base_url.rstrip("/")
        self._max_connections = max_connections
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(self, method: str, route: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        """See `Transport.request`."""
        session = self._open()
        try:
            async with session.request(method, self._base_url + route, json=body) as response:
                if response.content_type != "application/json":
                    return response.status, whole_characters(await response.text())
                return response.status, whole_characters(await response.json())
        except (aiohttp.ClientError, ValueError, LookupError, RecursionError) as error:
            # Not JSON, an unknown character set, or JSON too deep to read: as if nothing had answered.
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
            session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)
            self._session, self._loop = session, loop
        return self._session


class _Retry(Exception):
    """A transient failure: another attempt may succeed before the deadline."""


@dataclasses.dataclass
class _Replica:
    """One of several servers with equal contents."""

    url: str
    transport: Transport
    in_flight: int = 0
    down_until: float = 0.0

    def is_up(self) -> bool:
        return time.monotonic() >= self.down_until


class ToolClient:
    """Calls the search server, or the least busy of several; a server that does not answer is skipped for a while.

    Requests are fitted to the server's limits (`request_fitting`): those of `RequestLimits` until the server tells others.

    Args:
      base_url: for example "http://127.0.0.1:8123"; several are separated by commas.
      deadline_s: seconds for one call including retries; waiting for a free connection is not counted.
      max_retries: number of retries after a transient failure (no connection, overload, an internal error); each additional
        server adds one.
      max_concurrency: calls in flight at the same time.
      token: the bearer token that the servers expect; "" if they expect none.
      transports: one for each address, instead of HTTP.
    """

    def __init__(
        self,
        base_url: str,
        deadline_s: float = 30.0,
        max_retries: int = 3,
        max_concurrency: int = 32,
        token: str = "",
        transports: Sequence[Transport] | None = None,
    ):
        urls = [url.strip().rstrip("/") for url in base_url.split(",")]
        made = transports or [HttpTransport(url, max_concurrency, token) for url in urls]
        self._replicas = [_Replica(url, transport) for url, transport in zip(urls, made, strict=True)]
        self.base_url, self.deadline_s, self.max_retries = base_url, deadline_s, max_retries + len(urls) - 1
        self._max_concurrency = max_concurrency
        self._limits = RequestLimits()
        self._gate: asyncio.Semaphore | None = None
        self._gate_loop: asyncio.AbstractEventLoop | None = None

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        """Searches pages.

        Args:
          question: the question that the results should answer; a server that summarises results shows it to its model.

        Raises:
          ToolUnavailable: nothing answers at `base_url`.
          ToolTimeout: the deadline passed.
          ToolRefused: the server refused what was asked.
          ToolFailed: the server failed, or its answer cannot be read.
        """
        question = question.encode("utf-8", "replace").decode("utf-8")

        def fitted(limits: RequestLimits) -> search_api.TextSearchRequest:
            most = min(top_k, limits.max_top_k)
            return search_api.TextSearchRequest(fit_query(query, limits), most, question, self.deadline_s)

        return await self._fitted(search_api.ROUTE_TEXT_SEARCH, fitted)

    async def image_search(self, image: bytes, expression: str | None = None, top_k: int = 5) -> SearchReply:
        """Searches by an encoded image (JPEG, PNG, ...), or by the crop of it that `expression` refers to.

        Raises:
          ToolUnavailable, ToolTimeout, ToolFailed: as `text_search`.
        """
        return await self._by_image(search_api.ROUTE_IMAGE_SEARCH, image, expression, top_k)

    async def ground(self, image: bytes, expression: str) -> SearchReply:
        """Finds the region of an encoded image that an expression refers to; the reply has no results.

        Raises:
          ToolUnavailable, ToolTimeout, ToolFailed: as `text_search`.
        """
        return await self._by_image(search_api.ROUTE_GROUND, image, expression, 5)

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Waits until every server says that it is ready.

        Raises:
          ToolUnavailable: one did not within `timeout_s`.
        """
        give_up = time.monotonic() + timeout_s
        for replica in self._replicas:
            why = "no answer"
            while (left := give_up - time.monotonic()) > 0:
                try:
                    request = replica.transport.request("GET", search_api.ROUTE_READY, None)
                    status, body = await asyncio.wait_for(request, left)
                    if status == 200:
                        self._learn(body)
                        break
                    why = f"HTTP {status}"
                except (ConnectionError, TimeoutError) as error:
                    why = str(error) or why
                await asyncio.sleep(min(0.1, max(0.0, give_up - time.monotonic())))
            else:
                raise ToolUnavailable(_down(replica.url, f"not ready after {timeout_s:g} s ({why})"))

    async def close(self) -> None:
        """Closes connections; a later call opens them again."""
        for replica in self._replicas:
            await replica.transport.close()

    async def _by_image(self, route: str, image: bytes, expression: str | None, top_k: int) -> SearchReply:
        sent = FittedImage(image)

        def fitted(limits: RequestLimits) -> search_api.ImageSearchRequest:
            nonlocal sent
            sent = fit_image(image, limits)
            named = None if expression is None else fit_query(expression, limits)
            encoded = base64.b64encode(sent.data).decode()
            most = min(top_k, limits.max_top_k)
            return search_api.ImageSearchRequest(encoded, named, most, deadline_s=self.deadline_s)

        reply = await self._fitted(route, fitted)
        return sent.restore(reply)

    async def _fitted(self, route: str, fitted: Callable[[RequestLimits], Request]) -> SearchReply:
        """The reply to a request that fits the limits; if the server refuses it, its limits are asked for and tried once."""
        limits = self._limits
        try:
            return await self._search(route, await _made(fitted, limits, route))
        except ToolRefused:
            await self._ask_limits()
            if self._limits == limits:
                raise
        return await self._search(route, await _made(fitted, self._limits, route))

    async def _ask_limits(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            asked = self._replicas[0].transport.request("GET", search_api.ROUTE_READY, None)
            status, body = await asyncio.wait_for(asked, self.deadline_s)
            if status == 200:
                self._learn(body)

    def _learn(self, ready: Any) -> None:
        # Servers of another version may not tell them.
        told = ready.get("limits") if isinstance(ready, Mapping) else None
        with contextlib.suppress(DataError):
            self._limits = RequestLimits.from_json(told) if told is not None else self._limits

    async def _search(self, route: str, request: Request) -> SearchReply:
        async with self._slot():
            try:
                async with asyncio.timeout(self.deadline_s):
                    return await self._attempts(route, request.to_json())
            except TimeoutError as error:
                raise ToolTimeout(
                    f"{self.base_url}{route}: no answer within {self.deadline_s:g} s; "
                    "raise the tool deadline or lower the load"
                ) from error

    async def _attempts(self, route: str, body: Mapping[str, Any]) -> SearchReply:
        failed: list[_Replica] = []
        pause = tenacity.wait_random_exponential(multiplier=0.1, max=2.0)
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.max_retries + 1),
            # Try another server at once, but one that has failed already only after a pause.
            wait=lambda state: pause(state) if len(failed) >= len(self._replicas) else 0.0,
            retry=tenacity.retry_if_exception_type((_Retry, ConnectionError)),
            reraise=True,
        )
        replica = self._choose(failed)
        try:
            async for attempt in attempts:
                with attempt:
                    replica = self._choose(failed)
                    return await self._once(replica, route, body, failed)
        except ConnectionError as error:
            raise ToolUnavailable(_down(replica.url, str(error))) from error
        except _Retry as error:
            raise ToolFailed(f"{error} ({self.max_retries + 1} attempts)") from error
        raise AssertionError("tenacity re-raises the last failure")

    def _choose(self, failed: Sequence[_Replica]) -> _Replica:
        """The least busy server that is up and did not fail this call; if there is none, the least busy of all."""
        fresh = [replica for replica in self._replicas if replica not in failed] or self._replicas
        up = [replica for replica in fresh if replica.is_up()] or fresh
        return min(up, key=lambda replica: replica.in_flight)

    async def _once(
        self, replica: _Replica, route: str, body: Mapping[str, Any], failed: list[_Replica]
    ) -> SearchReply:
        replica.in_flight += 1
        try:
            return _read(replica.url + route, *await replica.transport.request("POST", route, body))
        except ConnectionError:
            replica.down_until = time.monotonic() + _DOWN_S
            failed.append(replica)
            raise
        except _Retry:
            failed.append(replica)
            raise
        finally:
            replica.in_flight -= 1

    def _slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate_loop is not loop:
            self._gate, self._gate_loop = asyncio.Semaphore(self._max_concurrency), loop
        return self._gate


def _read(where: str, status: int, body: Any) -> SearchReply:
    if status == 200:
        try:
            return SearchReply.from_json(body)
        except DataError as error:
            raise ToolFailed(f"{where}: unreadable answer: {error}") from error
    try:
        reply = search_api.ErrorReply.from_json(body)
    except DataError:
        reply = search_api.ErrorReply("internal" if status >= 500 else "bad_request", str(body)[:200])
    message = f"{where}: HTTP {status} {reply.code}: {reply.message}"
    if status in (400, 413) and reply.code == "bad_request":
        raise ToolRefused(message, reply.message)
    raise _Retry(message) if status >= 500 or status == 429 else ToolFailed(message)


async def _made(fitted: Callable[[RequestLimits], Request], limits: RequestLimits, route: str) -> Request:
    """The fitted request; a picture may have to be decoded and encoded, which must not hold up the other calls."""
    if route == search_api.ROUTE_TEXT_SEARCH:
        return fitted(limits)
    try:
        return await asyncio.to_thread(fitted, limits)
    except ImageError as error:
        raise ToolRefused(f"the image cannot be sent: {error}", str(error)) from error


def _down(url: str, why: str) -> str:
    return f"no search server at {url}: {why}; start one with `mmsearch serve-tools`"
