"""Unpacks a body piece by piece and stops at a bound: a few kilobytes can hold gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable

ENCODINGS = ("gzip", "deflate")
"""What we ask for; a server that sends anything else is refused."""


class Undecodable(Exception):
    """The bytes are not packed as the header says, or in a way that we did not ask for."""


Unpack = Callable[[bytes], bytes | None]
"""Unpacks the next piece; None where all pieces together pass the bound. Raises `Undecodable`."""


def decoder(encoding: str, max_bytes: int) -> Unpack:
    """Unpacks a body of this Content-Encoding ("" or "identity": as it is). A body cut short gives what it holds.

    Raises:
      Undecodable: an encoding that is not one of `ENCODINGS`.
    """
    name = encoding.strip().lower().removeprefix("x-")
    if name not in ("", "identity", *ENCODINGS):
        raise Undecodable
    return _Decoder(name, max_bytes)


class _Decoder:
    def __init__(self, name: str, max_bytes: int):
        self._name, self._left = name, max_bytes
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS) if name == "gzip" else None

    def __call__(self, data: bytes) -> bytes | None:
        if self._name == "deflate" and self._zlib is None and data:
            # Some servers send the bare stream, without zlib's header (low four bits 8).
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        if self._zlib is not None:
            try:
                # One byte more than is allowed tells a body that is too large from one that just fits.
                data = self._zlib.decompress(data, self._left + 1)
            except zlib.error:
                raise Undecodable from None
        self._left -= len(data)
        return data if self._left >= 0 else None
