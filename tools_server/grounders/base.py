"""What a grounder is."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from PIL import Image

from mmsearch_jax.search_api import Box


@dataclasses.dataclass(frozen=True)
class Grounding:
    """Where an expression points.

    Attributes:
      box: the region; None: not found, and the whole image is to be searched.
      note: what the policy must know about it, for instance that nothing was found.
      others: further regions that fit, best first.
    """

    box: Box | None
    note: str | None = None
    others: tuple[Box, ...] = ()


class Grounder(Protocol):
    """Finds what is described."""

    name: str

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """Where the expression points in an upright RGB image.

        Raises:
          SearchFailure: the grounder could not be asked.
        """
        ...
