"""Images on a public route of this server, under names that cannot be guessed and that expire."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web

from tools_server.failures import SearchFailure

ROUTE = "/blobs/{name}"


class BlobPublisher:
    """Keeps images in this process' memory, so it is for a server of one process; many replicas share a bucket instead.

    Args:
      public_url: the public address of this server, up to "/blobs".
      ttl_s: seconds for which an image can be fetched.
      max_bytes: of all images together; further ones are refused until some expire.
      clock: seconds; replaced in tests.
    """

    def __init__(self, public_url: str, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic):
        self._public_url, self._ttl_s, self._max_bytes, self._clock = public_url.rstrip("/"), ttl_s, max_bytes, clock
        # In the order of expiry, because all have the same lifetime.
        self._blobs: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._size = 0

    async def publish(self, data: bytes) -> str:
        """See `ImagePublisher.publish`."""
        self._drop_expired()
        if self._size + len(data) > self._max_bytes:
            # Older images are not dropped: a provider may be about to fetch them.
            raise SearchFailure("overloaded", "too many images wait to be fetched by providers", True, 1.0)
        name = f"{secrets.token_urlsafe(24)}.jpg"
        self._blobs[name] = (self._clock() + self._ttl_s, data)
        self._size += len(data)
        return f"{self._public_url}{ROUTE.format(name=name)}"

    def add_routes(self, app: web.Application) -> None:
        """Adds the route to a server."""
        app.router.add_get(ROUTE, self._serve)

    async def _serve(self, request: web.Request) -> web.Response:
        self._drop_expired()
        kept = self._blobs.get(request.match_info["name"])
        if kept is None:
            raise web.HTTPNotFound
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
            "X-Robots-Tag": "noindex",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        return web.Response(body=kept[1], content_type="image/jpeg", headers=headers)

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._blobs and next(iter(self._blobs.values()))[0] <= now:
            _, (_, data) = self._blobs.popitem(last=False)
            self._size -= len(data)
