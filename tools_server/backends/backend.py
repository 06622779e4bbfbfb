"""What a backend is: a name, a price, and one way to ask it."""

from __future__ import annotations

import functools
import io
from typing import Protocol, TypeVar

from PIL import Image

from mmsearch_jax.core.search_api import SearchResult

Q = TypeVar("Q", contravariant=True)
_JPEG_QUALITY = 90


class Backend(Protocol[Q]):
    """Answers one kind of query: `str` for text search, `QueryPicture` for image search.

    Attributes:
      name: as the config spells it.
      cost_usd: list price of one call.
    """

    name: str
    cost_usd: float

    async def search(self, query: Q, top_k: int) -> tuple[SearchResult, ...]:
        """Results, best first; none where nothing is found.

        Raises:
          SearchFailure: no answer.
        """
        ...


class QueryPicture:
    """What an image search is for: an upright RGB image, whole or cropped."""

    def __init__(self, image: Image.Image):
        self.image = image

    @functools.cached_property
    def jpeg(self) -> bytes:
        """The picture as upstreams take it."""
        out = io.BytesIO()
        self.image.save(out, "JPEG", quality=_JPEG_QUALITY)
        return out.getvalue()
