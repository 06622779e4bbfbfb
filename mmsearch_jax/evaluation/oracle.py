"""The oracle ablation: the evidence of a row replaces the search server.

It measures how well the policy reads: search is not the cause if it misses a question with the evidence in its context.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.search_api import Box, SearchReply, SearchResult
from mmsearch_jax.data.rows import Row

EVIDENCE = "evidence"
"""Key of a row's `meta`: JSON {"image": [{"title", "text"}, ...], "text": [...]}, the results of a perfect search."""


class Evidence(NamedTuple):
    """The results of each tool, and the box of the question's object (None: not known)."""

    image: tuple[SearchResult, ...] = ()
    text: tuple[SearchResult, ...] = ()
    box: Box | None = None


class OracleTools:
    """Answers every search of one row with its evidence, whatever the query."""

    def __init__(self, evidence: Evidence):
        self._evidence = evidence

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        """Returns the row's pages."""
        return SearchReply(self._evidence.text[:top_k], "text_search", backend="oracle")

    async def image_search(self, image: bytes, expression: str | None = None, top_k: int = 5) -> SearchReply:
        """Returns the evidence on the image, or on the question's object."""
        crop = expression is not None
        return SearchReply(
            self._evidence.image[:top_k],
            "image_search",
            box=self._evidence.box if crop else None,
            grounded=crop,
            backend="oracle",
        )


def given_evidence(row: Row) -> Evidence | None:
    """The evidence that a row of a published set holds; None if it holds none.

    The source is `meta["evidence"]`. For SimpleVQA, `atomic_fact` is the image's evidence and the gold answer the page.

    Raises:
      DataError: `meta["evidence"]` has another format.
    """
    if EVIDENCE in row.meta:
        try:
            found = json.loads(row.meta[EVIDENCE])
            image, text = (
                tuple(SearchResult(str(hit["title"]), str(hit["text"])) for hit in found.get(tool, ()))
                for tool in ("image", "text")
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"row {row.id}: meta['{EVIDENCE}'] must be {{'image': [...], 'text': [...]}}") from error
        return Evidence(image, text)
    if fact := row.meta.get("atomic_fact"):
        return Evidence((SearchResult(fact, ""),), (SearchResult(fact, row.answers[0]),))
    return None
