"""The interface of a backend: a name, a price, and a search."""

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
      name: as in the settings.
      cost_usd: list price of one call.
    """

    name: str
    cost_usd: float

    async def search(self, query: Q, top_k: int) -> tuple[SearchResult, ...]:
        """Results, best first; empty if nothing is found.

        Raises:
          SearchFailure: no answer.
        """
        ...


class QueryPicture:
    """The query of an image search: an upright RGB image, whole or cropped."""

    def __init__(self, image: Image.Image):
        self.image = image

    @functools.cached_property
    def jpeg(self) -> bytes:
        """The picture as it is sent to upstreams."""
        out = io.BytesIO()
        self.image.save(out, "JPEG", quality=_JPEG_QUALITY)
        return out.getvalue()
