"""Engines that rank passages by the words of a query: their interface, and the engines by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tools_server.corpora import fts5_engine, tantivy_engine
from tools_server.corpora.passage_store import VERSION
from tools_server.hits import Page

ENGINES = ("fts5", "tantivy")


class Writer(Protocol):
    """Indexes a corpus's passages in the order of their numbers."""

    def add(self, first: int, pages: Sequence[Page]) -> None:
        """Indexes pages as numbers `first`, `first` + 1, ..."""
        ...

    def close(self) -> None:
        """Completes the files."""
        ...


class PassageEngine(Protocol):
    """Finds passages. Safe to use from several threads."""

    def search(self, query: str, count: int) -> list[tuple[int, float]]:
        """Numbers and BM25 scores (higher is better) of the best passages with any word of the query, best first.

        Raises:
          SearchFailure: it takes too long.
        """
        ...

    def close(self) -> None:
        """Frees resources."""
        ...


class Kind(NamedTuple):
    """An engine: its writer, its reader (folder, seconds for one search), and its file or folder in the index."""

    write: Callable[[Path], Writer]
    open: Callable[[Path, float], PassageEngine]
    file: str
    version: str


def engine_kind(name: str) -> Kind:
    """The engine with this name.

    Raises:
      ConfigError: it is not installed.
    """
    if name == "tantivy":
        return Kind(
            tantivy_engine.TantivyWriter, tantivy_engine.TantivyEngine, tantivy_engine.FOLDER, tantivy_engine.version()
        )
    return Kind(fts5_engine.Fts5Writer, fts5_engine.Fts5Engine, fts5_engine.FILE, VERSION)
