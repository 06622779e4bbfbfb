"""Fetches a web page within limits: bytes, time, redirects, content types. The guard checks every redirect."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from tools_server.fetch.decoding import ENCODINGS, Undecodable, decoder
from tools_server.fetch.guard import Admitted, Guard, Refused
from tools_server.settings.page_reading import FetchLimits

CONTENT_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 32 * 1024


class FetchFailed(Exception):
    """The page was not fetched; `reason` is one word, for counting."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A page: decompressed bytes, their media type, and the charset that the server named ("": none)."""

    body: bytes
    content_type: str
    charset: str


class Fetcher:
    """Fetches pages; for one event loop.

    Args:
      user_agent: the User-Agent header.
    """

    def __init__(self, guard: Guard, limits: FetchLimits, user_agent: str):
        self._guard, self._limits = guard, limits
        self._headers = {
            "User-Agent": user_agent,
            "Accept": ", ".join(CONTENT_TYPES),
            "Accept-Encoding": ", ".join(ENCODINGS),
        }
        self._hosts: dict[str, _HostGate] = {}

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Fetched:
        """One page.

        Args:
          headers: sent only to `url` itself, not to addresses that it redirects to.

        Raises:
          FetchFailed: the page was not fetched. Reasons: refused, dns, connection, timeout, redirects, status, content_type,
            encoding or too_large.
        """
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._follow(url, {**self._headers, **(headers or {})})
        except TimeoutError:
            raise FetchFailed("timeout") from None
        except Refused as refused:
            raise FetchFailed(refused.reason) from None
        except Undecodable:
            raise FetchFailed("encoding") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise FetchFailed("connection") from None

    async def _follow(self, url: str, headers: Mapping[str, str]) -> Fetched:
        for _ in range(self._limits.max_redirects + 1):
            admitted = await self._guard.admit(url)
            async with self._turn(str(admitted.url.raw_host)):
                answer = await self._hop(admitted, headers)
            if isinstance(answer, Fetched):
                return answer
            url, headers = answer, self._headers
        raise FetchFailed("redirects")

    async def _hop(self, admitted: Admitted, headers: Mapping[str, str]) -> Fetched | str:
        """The page, or the address to which it is redirected."""
        # One session per hop: cookies and connections of one host are not used for another, and only the addresses that were
        # just checked can be reached. Proxies from the environment are ignored.
        async with (
            _connector(admitted) as connector,
            aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            ) as session,
            session.get(admitted.url, headers=headers, allow_redirects=False) as response,
        ):
            if response.status in _REDIRECTS:
                return _target(admitted.url, response.headers.get("Location", ""))
            if response.status != 200:
                raise FetchFailed("status")
            if response.content_type not in CONTENT_TYPES:
                raise FetchFailed("content_type")
            return Fetched(await self._body(response), response.content_type, response.charset or "")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        if (response.content_length or 0) > self._limits.max_bytes:
            raise FetchFailed("too_large")
        unpack = decoder(response.headers.get("Content-Encoding", ""), self._limits.max_decoded_bytes)
        taken, parts = 0, []
        async for chunk in response.content.iter_chunked(_CHUNK):
            taken += len(chunk)
            part = unpack(chunk)
            if taken > self._limits.max_bytes or part is None:
                raise FetchFailed("too_large")
            parts.append(part)
        return b"".join(parts)

    @contextlib.asynccontextmanager
    async def _turn(self, host: str) -> AsyncIterator[None]:
        gate = self._hosts.setdefault(host, _HostGate(asyncio.Semaphore(self._limits.max_per_host)))
        gate.users += 1
        try:
            async with gate.semaphore:
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                del self._hosts[host]


@dataclasses.dataclass
class _HostGate:
    semaphore: asyncio.Semaphore
    users: int = 0


def _target(url: yarl.URL, location: str) -> str:
    if not location:
        raise FetchFailed("status")
    # The guard must see the address as it was sent, not as a lenient parser rewrites it.
    return location if "://" in location.split("?")[0] else str(url.join(yarl.URL(location)))


class _Pinned(AbstractResolver):
    """Resolves to the addresses that were checked, even if the name servers answer differently by now."""

    def __init__(self, admitted: Admitted):
        self._admitted = admitted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                proto=0,
                flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
            )
            for address in self._admitted.addresses
        ]

    async def close(self) -> None:
        pass


def _connector(admitted: Admitted) -> aiohttp.TCPConnector:
    checked = {str(address) for address in admitted.addresses}

    def open_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        # The last check before a connection is made, independent of how the library resolved the address.
        if address[0] not in checked:
            raise OSError("an address that was not checked")
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        resolver=_Pinned(admitted), use_dns_cache=False, force_close=True, socket_factory=open_socket
    )
