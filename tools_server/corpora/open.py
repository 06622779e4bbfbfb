"""Opens an index folder and searches it: by words, by vectors, or by both."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch_jax.core.errors import ConfigError, DataError
from tools_server.corpora.embedders import Embedder, EmbedderSpec
from tools_server.corpora.engines import engine_kind
from tools_server.corpora.fusion import reciprocal_rank_fusion
from tools_server.corpora.manifest import PASSAGES, Manifest, read_manifest
from tools_server.corpora.open_embedder import open_embedder
from tools_server.corpora.passage_store import PassageStore
from tools_server.corpora.vectors import VectorInfo, Vectors
from tools_server.failures import SearchFailure
from tools_server.hits import Hit
from tools_server.ranking import NUM_CANDIDATES, with_title, words
from tools_server.settings.sources import BY_BOTH, BY_VECTORS, BY_WORDS, WAYS


def open_index(folder: Path, by: str = "", embedder: str = "", timeout_s: float = 30.0) -> PassageIndex:
    """Opens an index that `passage_build.build_index` made. It does not read passages or vectors yet.

    Args:
      by: one of `WAYS`; "" is both if the index has vectors, else words.
      embedder: where its embedder is, if it has moved since the build.
      timeout_s: seconds for one search by words, and for one vector from an endpoint.

    Raises:
      DataError: no index, or a damaged one.
      ConfigError: the index has no vectors to search by, or its embedder cannot be used or is another one.
    """
    manifest = read_manifest(folder, PASSAGES)
    by = by or (BY_BOTH if manifest.vectors else BY_WORDS)
    if by not in WAYS:
        raise ConfigError(f"an index is searched by {', '.join(WAYS)}, not by '{by}'")
    if by != BY_WORDS and manifest.vectors is None:
        raise ConfigError(f"{folder} has no vectors to search by: build it with --dense MODEL, or search by {BY_WORDS}")
    dense = _open_dense(folder, manifest, embedder, timeout_s) if by != BY_WORDS else None
    try:
        return PassageIndex(folder, manifest, by, dense, timeout_s)
    except (sqlite3.Error, OSError, ValueError) as error:
        raise DataError(f"the index at {folder} is damaged ({error}): build it again") from error


@dataclasses.dataclass(frozen=True)
class _Dense:
    vectors: Vectors
    embedder: Embedder
    spec: EmbedderSpec


class PassageIndex:
    """Passages on disk. Safe to use from several threads."""

    def __init__(self, folder: Path, manifest: Manifest, by: str, dense: _Dense | None, timeout_s: float):
        self.manifest, self.by = manifest, by
        self._folder, self._dense = folder, dense
        self._store = PassageStore(folder)
        self._engine = engine_kind(manifest.recipe["engine"]).open(folder, timeout_s)

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def dropped_addresses(self) -> int:
        """Number of pages whose address results do not show."""
        return self.manifest.dropped_addresses

    async def embed(self, query: str) -> np.ndarray | None:
        """The query's vector, float32 [1, dim], for `search`; None if the index is not searched by vectors.

        Raises:
          SearchFailure: the embedder gave no vector.
        """
        if self._dense is None:
            return None
        return await self._dense.embedder.embed([self._dense.spec.query_prefix + query])

    def search(self, query: str, top_k: int, vector: np.ndarray | None = None) -> list[Hit]:
        """The best passages, complete, best first. Blocks. Any text is a valid query.

        A score is BM25 plus the title's share (words), the cosine (vectors), or the sum of the fusion (both).

        Args:
          vector: the result of `embed` for the query.

        Raises:
          SearchFailure: FTS5 took too long, or the index was damaged after it was opened.
        """
        try:
            ranked = self._rank(query, vector)[:top_k]
            pages = self._store.get([number for number, _ in ranked])
        except (sqlite3.Error, OSError, KeyError, ValueError) as error:
            raise SearchFailure(
                "internal", f"the index at {self._folder} cannot be read ({error}): build it again"
            ) from error
        return [Hit(page, round(score, 4)) for page, (_, score) in zip(pages, ranked, strict=True)]

    async def close(self) -> None:
        """Closes all files and connections."""
        self._engine.close()
        self._store.close()
        if self._dense is not None:
            await self._dense.embedder.close()

    def _rank(self, query: str, vector: np.ndarray | None) -> list[tuple[int, float]]:
        by_words = self._rank_by_words(query) if self.by != BY_VECTORS else []
        if self._dense is None:
            return by_words
        assert vector is not None, "an index with vectors is searched by the query's vector"
        numbers, cosines = self._dense.vectors.search(vector, NUM_CANDIDATES)
        by_vector = [(int(number), float(cosine)) for number, cosine in zip(numbers[0], cosines[0], strict=True)]
        if self.by == BY_VECTORS:
            return by_vector
        return reciprocal_rank_fusion([[number for number, _ in ranking] for ranking in (by_words, by_vector)])

    def _rank_by_words(self, query: str) -> list[tuple[int, float]]:
        found = self._engine.search(query, NUM_CANDIDATES)
        asked = words(query)
        titles = [words(page.title) for page in self._store.get([number for number, _ in found])]
        scored = [(number, with_title(bm25, title, asked)) for (number, bm25), title in zip(found, titles, strict=True)]
        return sorted(scored, key=lambda entry: (-entry[1], entry[0]))


def _open_dense(folder: Path, manifest: Manifest, where: str, deadline_s: float) -> _Dense:
    assert manifest.vectors is not None
    info = VectorInfo(**manifest.vectors)
    made_by: dict[str, Any] = dict(info.embedder)
    identity = made_by.pop("identity")
    spec = EmbedderSpec(**made_by)
    spec = dataclasses.replace(spec, where=where) if where else spec
    embedder = open_embedder(spec, deadline_s)
    if identity and embedder.identity and embedder.identity != identity:
        raise ConfigError(
            f"the model at {spec.where} is not the one that made the vectors of {folder}: name that one, or build again"
        )
    return _Dense(Vectors(folder, info), embedder, spec)
