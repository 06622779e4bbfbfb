"""The embedded grounder behind the common interface: words of place, size, colour and kind (`tools_server.grounding`)."""

from __future__ import annotations

from PIL import Image

from tools_server import grounding
from tools_server.grounders.base import Grounding
from tools_server.work_pool import WorkPool


class EmbeddedGrounder:
    """Needs no weights; made for pictures in frames, as in the mini-world."""

    name = "embedded"

    def __init__(self, pool: WorkPool):
        self._pool = pool

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """See `Grounder.ground`."""
        return await self._pool.run(lambda: grounding.ground(image, expression))
