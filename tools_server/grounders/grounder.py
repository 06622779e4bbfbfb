"""The interface of a grounder."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from PIL import Image

from mmsearch_jax.core.search_api import Box

NOT_FOUND = "No such region was found; the whole image was used."
NOT_THERE = "No such region was found."
"""The note of grounding alone, which searches nothing."""
NOT_SEARCHED = "No such region was found; nothing was searched."


@dataclasses.dataclass(frozen=True)
class Grounding:
    """The region that an expression names.

    Attributes:
      box: the region; None if not found.
      note: what the policy must know about it, for instance that nothing was found.
      others: further regions that fit, best first.
      search_whole: without a box, whether the whole image is searched instead.
    """

    box: Box | None
    note: str | None = None
    others: tuple[Box, ...] = ()
    search_whole: bool = True


class Grounder(Protocol):
    """Finds the region that an expression names."""

    name: str

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """The region of an upright RGB image that the expression names.

        Raises:
          SearchFailure: the grounder gave no answer.
        """
        ...

    async def close(self) -> None:
        """Frees threads and connections."""
        ...
