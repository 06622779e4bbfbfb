"""Decides whether a URL may be fetched, and from which addresses: the guard against server-side request forgery.

The URL comes from a web page, so it may name this machine, its network, or a cloud's metadata service. A name is resolved once,
here. The caller connects only to the addresses that were checked, so a name server that answers differently the second time
(DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import yarl

from tools_server.fetch.addresses import Address, AllowList, is_public
from tools_server.inert import MAX_URL_CHARS
from tools_server.settings.page_reading import WEB_PORTS

# DNS names after IDNA: letters, digits, hyphens, underscores. Anything else (percent signs, zones, blanks) is refused.
_NAME = re.compile(r"(?=.{1,253}\Z)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}(?<!-)")
# Browsers and getaddrinfo read a name that ends like this as an IPv4 address: 127.1, 0x7f.1, 2130706433, 0177.0.0.1.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")

# Separate threads: slow name servers must not delay the other work that the server does in threads.
_LOOKUPS = ThreadPoolExecutor(16, thread_name_prefix="dns")

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a name; raises OSError if there are none."""


class Refused(Exception):
    """The URL may not be fetched; `reason` is one word for counting."""

    def __init__(self, message: str, reason: str = "refused"):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Admitted:
    """A URL that may be fetched, only from these addresses."""

    url: yarl.URL
    addresses: tuple[Address, ...]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name by the system's resolver."""
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
    return [str(sockaddr[0]) for _, _, _, _, sockaddr in found]


class Guard:
    """Admits URLs of the public web.

    Args:
      allow: what may also be reached; see `AllowList`.
      ports: ports of public hosts; an entry of `allow` that ends in a port allows that one, too.
      resolver: replaced in tests.
    """

    def __init__(self, allow: Iterable[str] = (), ports: Iterable[int] = WEB_PORTS, resolver: Resolve = resolve):
        self._allow, self._ports, self._resolve = AllowList(allow), frozenset(ports), resolver

    def check(self, url: str) -> yarl.URL:
        """The URL, parsed as it will be used, if it may be fetched as far as can be seen without resolving its host.

        Raises:
          Refused: the scheme, the port, the host's form or another part of the URL is not allowed.
        """
        if len(url) > MAX_URL_CHARS or _UNPRINTABLE.search(url):
            raise Refused("the URL is too long, or holds blanks, control characters or backslashes")
        try:
            parsed = yarl.URL(url)
            host, port = parsed.raw_host or "", parsed.port
        except ValueError:
            raise Refused("the URL cannot be read") from None
        if parsed.scheme not in ("http", "https"):
            raise Refused("the scheme is neither http nor https")
        if parsed.raw_user is not None or parsed.raw_password is not None:
            raise Refused("the URL holds credentials")
        if _literal(host) is None and (not _NAME.fullmatch(host) or _ENDS_IN_NUMBER.fullmatch(host)):
            raise Refused("the host is neither a name nor an address in plain form")
        if port is None or not (port in self._ports or self._allow.opens(host, port)):
            raise Refused(f"the port {port} is not one of the web's")
        return parsed.with_fragment(None)

    async def admit(self, url: str) -> Admitted:
        """The URL and the addresses that it may be fetched from.

        Raises:
          Refused: see `check`; or one of its addresses is not public; or (reason "dns") it has none.
        """
        parsed = self.check(url)
        host, port = str(parsed.raw_host), int(parsed.port or 0)
        literal = _literal(host)
        addresses = (literal,) if literal is not None else await self._lookup(host, port)
        named = literal is None and self._allow.has_host(host, port)
        if not named and not all(is_public(a) or self._allow.has_address(a, port) for a in addresses):
            # All must be public: a name with both kinds of addresses is suspicious.
            raise Refused("the host is on a private or reserved network")
        return Admitted(parsed, addresses)

    async def _lookup(self, host: str, port: int) -> tuple[Address, ...]:
        try:
            found = await self._resolve(host, port)
            addresses = tuple(dict.fromkeys(ipaddress.ip_address(address) for address in found))
        except (OSError, UnicodeError, ValueError):
            addresses = ()
        if not addresses:
            raise Refused("the host has no address", "dns")
        return addresses


def _literal(host: str) -> Address | None:
    """The address that a host is, as a dotted quad or as IPv6 without a zone; else None."""
    try:
        return ipaddress.ip_address(host) if "%" not in host else None
    except ValueError:
        return None
