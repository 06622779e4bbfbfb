"""Decompresses a body chunk by chunk and stops at a limit: a few kilobytes can decompress to gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable

ENCODINGS = ("gzip", "deflate")
"""The encodings that are requested; a reply in another one is refused."""


class Undecodable(Exception):
    """The bytes are not encoded as the header says, or in an encoding that was not requested."""


Unpack = Callable[[bytes], bytes | None]
"""Decompresses the next chunk; None if all chunks together exceed the limit. Raises `Undecodable`."""


def decoder(encoding: str, max_bytes: int) -> Unpack:
    """A decompressor for this Content-Encoding ("" or "identity": none). A truncated body gives what could be decompressed.

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
            # Some servers send the raw stream without zlib's header, whose low four bits are 8.
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        if self._zlib is not None:
            try:
                # One byte above the limit distinguishes a body that is too large from one that just fits.
                data = self._zlib.decompress(data, self._left + 1)
            except zlib.error:
                raise Undecodable from None
        self._left -= len(data)
        return data if self._left >= 0 else None
