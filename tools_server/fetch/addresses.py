"""Which IP addresses belong to the public internet, and which other addresses a user allows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from mmsearch_jax.core.settings import SettingError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IPv6 is public only inside 2000::/3 (IANA). This excludes NAT64, IPv4-compatible, site-local and unassigned addresses.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Some versions of Python call these global, but they lead to an address embedded in them, to the nearest relay, or nowhere.
_SPECIAL: tuple[_Network, ...] = (
    ipaddress.IPv6Network("2002::/16"),  # 6to4
    ipaddress.IPv6Network("2001::/23"),  # Teredo, ORCHID and other special assignments
    ipaddress.IPv6Network("3fff::/20"),  # documentation (RFC 9637)
    ipaddress.IPv4Network("192.0.0.0/24"),  # special assignments, some of them anycast
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays
)


def is_public(address: Address) -> bool:
    """Whether an address belongs to a host of the public internet, and does not reach another one by a tunnel or a mapping."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None or address.ipv4_mapped is not None or address not in _GLOBAL_UNICAST:
            return False
    if any(address.version == special.version and address in special for special in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class AllowList:
    """Hosts and networks that may be reached although they are not public.

    Args:
      entries: "wiki.corp.example" (only this name, no subdomains), "10.1.0.0/16" or "10.1.2.3". Each may end in ":PORT"
        ("[fd00::1]:8080" for IPv6) and then allows only that port.

    Raises:
      SettingError: an entry is none of these.
    """

    def __init__(self, entries: Iterable[str] = ()):
        self._hosts: set[tuple[str, int | None]] = set()
        self._networks: list[tuple[_Network, int | None]] = []
        for entry in entries:
            name, port = _split_port(entry)
            try:
                self._networks.append((ipaddress.ip_network(name), port))
            except ValueError:
                if "/" in name or not name or name.replace(".", "").isdigit():
                    raise SettingError(
                        "allow", f"has '{entry}': give a host, an address, or a network such as 10.1.0.0/16"
                    ) from None
                self._hosts.add((name.lower(), port))

    def has_host(self, host: str, port: int) -> bool:
        """Whether a name is on the list, for this port."""
        return (host, None) in self._hosts or (host, port) in self._hosts

    def has_address(self, address: Address, port: int) -> bool:
        """Whether an address is on the list, for this port."""
        return any(
            address.version == network.version and address in network and opened in (None, port)
            for network, opened in self._networks
        )

    def opens(self, host: str, port: int) -> bool:
        """Whether an entry names exactly this port, for this name or address."""
        if (host, port) in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address.version == n.version and address in n and opened == port for n, opened in self._networks)


def _split_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, int(port[1:]) if port[1:].isdigit() else None
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and ":" not in name:
        return name, int(port)
    return entry, None
