"""Bodies of HTTP replies that are read no further than they may be long."""

from __future__ import annotations

import aiohttp


async def read_bounded(reply: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The body, unpacked; None where it has more than `most` bytes, of which no more is read."""
    parts, size = [], 0
    async for part in reply.content.iter_any():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)
