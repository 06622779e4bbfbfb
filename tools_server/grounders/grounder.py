"""What a grounder is."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from PIL import Image

from mmsearch_jax.core.search_api import Box

NOT_FOUND = "No such region was found; the whole image was used."
NOT_SEARCHED = "No such region was found; nothing was searched."


@dataclasses.dataclass(frozen=True)
class Grounding:
    """Where an expression points.

    Attributes:
      box: the region; None: not found.
      note: what the policy must know about it, for instance that nothing was found.
      others: further regions that fit, best first.
      search_whole: without a box, whether the whole image is to be searched in its place.
    """

    box: Box | None
    note: str | None = None
    others: tuple[Box, ...] = ()
    search_whole: bool = True


class Grounder(Protocol):
    """Finds what is described."""

    name: str

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """Where the expression points in an upright RGB image.

        Raises:
          SearchFailure: the grounder could not be asked.
        """
        ...

    async def close(self) -> None:
        """Frees threads and connections."""
        ...
