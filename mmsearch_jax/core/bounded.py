"""Reads the bodies of HTTP replies up to a maximum length."""

from __future__ import annotations

import aiohttp


async def read_bounded(reply: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The decompressed body; None if it has more than `most` bytes, after which reading stops."""
    parts, size = [], 0
    async for part in reply.content.iter_any():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)
