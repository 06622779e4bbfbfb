"""The toy grounder behind the common interface: words of place, size, colour and kind (`toy_vision.grounding`)."""

from __future__ import annotations

import dataclasses

from PIL import Image

from tools_server.grounders.grounder import NOT_FOUND, NOT_SEARCHED, Grounding
from tools_server.toy_vision import grounding
from tools_server.work_pool import WorkPool


class EmbeddedGrounder:
    """Needs no weights; made for framed pictures, as in the mini-world.

    Args:
      search_whole: whether the whole image is searched if nothing is found.
    """

    name = "embedded"

    def __init__(self, pool: WorkPool, search_whole: bool = True):
        self._pool, self._search_whole = pool, search_whole

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """See `Grounder.ground`."""
        found = await self._pool.run(lambda: grounding.ground(image, expression))
        if found.box is not None or self._search_whole:
            return found
        note = (found.note or NOT_FOUND).replace(NOT_FOUND, NOT_SEARCHED)
        return dataclasses.replace(found, note=note, search_whole=False)

    async def close(self) -> None:
        """Nothing to close: the service owns the pool."""
