"""The corpus on this machine as a backend: it costs nothing and is limited only by its threads."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.search_api import SearchResult
from tools_server.backends.backend import QueryPicture
from tools_server.corpora.manifest import is_index
from tools_server.corpora.open import PassageIndex, open_index
from tools_server.corpora.picture_index import PictureIndex
from tools_server.hits import Hit
from tools_server.image_index import ImageIndex
from tools_server.settings.sources import LOCAL
from tools_server.text_index import TextIndex
from tools_server.work_pool import WorkPool

_log = logging.getLogger("tools_server")


class Corpus:
    """What is searched on this machine: a folder of pages and pictures, indexed in memory, or indexes on disk.

    Args:
      folder: holds `pages.jsonl`, `images.jsonl` and the pictures, or is an index that `mmsearch index build` made.
      pictures: an index that `mmsearch index build-images` made; None for the folder's own pictures, if any.
      by, embedder, timeout_s: see `corpora.open.open_index`.

    Raises:
      DataError: the corpus or an index is missing or damaged.
      ConfigError: an index cannot be searched that way.
    """

    def __init__(
        self, folder: Path, pictures: Path | None = None, by: str = "", embedder: str = "", timeout_s: float = 30.0
    ):
        if not is_index(folder) and not (folder / "pages.jsonl").is_file():
            raise DataError(
                f"no corpus at {folder}: --corpus must name a folder with pages.jsonl (and images.jsonl), or an index "
                "that `mmsearch index build` made"
            )
        self.pages: TextIndex | PassageIndex
        if is_index(folder):
            self.pages = open_index(folder, by, embedder, timeout_s)
        else:
            self.pages = TextIndex.from_corpus(folder)
        self.pictures = PictureIndex(pictures) if pictures is not None else ImageIndex.from_corpus(folder)
        if dropped := self.pages.dropped_addresses + self.pictures.dropped_addresses:
            _log.warning(
                "%s: results show no address for %d of the pages and pictures: only http and https addresses without "
                "blanks are shown",
                folder,
                dropped,
            )

    @property
    def identity(self) -> dict[str, dict[str, str]]:
        """What decides answers of text and image search, besides the backends' names: the index and how it is searched."""
        text, image = {}, {}
        if isinstance(self.pages, PassageIndex):
            text = {"index": self.pages.manifest.id, "by": self.pages.by}
        if isinstance(self.pictures, PictureIndex):
            image = {"index": self.pictures.manifest.id}
        return {"text": text, "image": image}

    async def embed(self, query: str) -> np.ndarray | None:
        """The query's vector, if the corpus is searched by vectors."""
        return await self.pages.embed(query) if isinstance(self.pages, PassageIndex) else None

    def search_text(self, query: str, top_k: int, vector: np.ndarray | None = None) -> tuple[SearchResult, ...]:
        """The best pages or passages for a query, complete. Blocks; safe to call from several threads."""
        if isinstance(self.pages, PassageIndex):
            hits = self.pages.search(query, top_k, vector)
        else:
            hits = self.pages.search(query, top_k)
        return tuple(map(as_result, hits))

    def search_image(self, picture: QueryPicture, top_k: int) -> tuple[SearchResult, ...]:
        """The pictures most like this one. Blocks; safe to call from several threads."""
        return tuple(
            SearchResult(
                found.title, found.description, found.url, self.pictures.thumbnail(found), score=round(score, 4)
            )
            for found, score in self.pictures.search(picture.image, top_k)
        )

    async def close(self) -> None:
        """Closes the files of indexes."""
        if isinstance(self.pages, PassageIndex):
            await self.pages.close()
        if isinstance(self.pictures, PictureIndex):
            self.pictures.close()


def as_result(hit: Hit) -> SearchResult:
    """A hit as a result with all of its text."""
    return SearchResult(hit.page.title, hit.page.text, hit.page.url, score=hit.score, id=hit.page.id)


class LocalText:
    """Text search in a corpus."""

    name, cost_usd = LOCAL, 0.0

    def __init__(self, corpus: Corpus, pool: WorkPool):
        self._corpus, self._pool = corpus, pool

    async def search(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        vector = await self._corpus.embed(query)
        return await self._pool.run(lambda: self._corpus.search_text(query, top_k, vector))


class LocalImage:
    """Image search in a corpus."""

    name, cost_usd = LOCAL, 0.0

    def __init__(self, corpus: Corpus, pool: WorkPool):
        self._corpus, self._pool = corpus, pool

    async def search(self, query: QueryPicture, top_k: int) -> tuple[SearchResult, ...]:
        """See `Backend.search`."""
        return await self._pool.run(lambda: self._corpus.search_image(query, top_k))
