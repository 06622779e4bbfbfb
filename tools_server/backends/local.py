"""The corpus on this machine as a backend: it costs nothing and knows no limits but the threads."""

from __future__ import annotations

from pathlib import Path

from mmsearch_jax.errors import DataError
from mmsearch_jax.search_api import SearchResult
from tools_server.backends.base import Picture
from tools_server.image_index import ImageIndex
from tools_server.text_index import TextIndex
from tools_server.work_pool import WorkPool

NAME = "local"


class Corpus:
    """A folder with `pages.jsonl`, `images.jsonl` and the pictures, indexed in memory. Blocking; for several threads.

    Raises:
      DataError: the corpus is missing or damaged.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise DataError(f"no corpus at {folder}: --corpus must name a folder with pages.jsonl and images.jsonl")
        self.pages = TextIndex.from_corpus(folder)
        self.pictures = ImageIndex.from_corpus(folder)

    def search_text(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        """The best pages for a query."""
        hits = self.pages.search(query, top_k)
        return tuple(SearchResult(hit.page.title, hit.snippet, hit.page.url, score=hit.score) for hit in hits)

    def search_image(self, picture: Picture, top_k: int) -> tuple[SearchResult, ...]:
        """The pictures most like this one."""
        return tuple(
            SearchResult(
                found.title, found.description, found.url, self.pictures.thumbnail(found), score=round(score, 4)
            )
            for found, score in self.pictures.search(picture.image, top_k)
        )


class LocalText:
    """Text search in a corpus."""

    name, cost_usd = NAME, 0.0

    def __init__(self, corpus: Corpus, pool: WorkPool):
        self._corpus, self._pool = corpus, pool

    async def search(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        return await self._pool.run(lambda: self._corpus.search_text(query, top_k))


class LocalImage:
    """Image search in a corpus."""

    name, cost_usd = NAME, 0.0

    def __init__(self, corpus: Corpus, pool: WorkPool):
        self._corpus, self._pool = corpus, pool

    async def search(self, query: Picture, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        return await self._pool.run(lambda: self._corpus.search_image(query, top_k))
