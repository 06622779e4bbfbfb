"""Full-text search over a small corpus's pages, in memory.

SQLite's FTS5 (BM25) finds candidates, which are ranked again by their titles. Larger corpora: `corpora/`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from tools_server.hits import Hit, Page
from tools_server.inert import drops_address
from tools_server.ranking import (
    NUM_CANDIDATES,
    TEXT_WEIGHT,
    TITLE_WEIGHT,
    TOKENIZER,
    indexable,
    match_expression,
    with_title,
    words,
)


class TextIndex:
    """Pages in an in-memory FTS5 table. Safe to use from several threads."""

    def __init__(self, pages: Sequence[Page]):
        self._pages = list(pages)
        self._titles = [words(page.title) for page in self._pages]
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            f"CREATE VIRTUAL TABLE pages USING fts5(title, text, content='', tokenize=\"{TOKENIZER}\")"
        )
        self._database.executemany(
            "INSERT INTO pages(rowid, title, text) VALUES (?, ?, ?)",
            ((i, indexable(page.title), indexable(page.text)) for i, page in enumerate(self._pages)),
        )

    def __len__(self) -> int:
        return len(self._pages)

    @property
    def dropped_addresses(self) -> int:
        """Number of pages whose address results do not show."""
        return sum(drops_address(page.url) for page in self._pages)

    @classmethod
    def from_corpus(cls, folder: Path) -> TextIndex:
        """Reads `pages.jsonl`.

        Raises:
          DataError: the file is missing or a line is not a page.
        """
        return cls(read_pages(folder))

    def search(self, query: str, top_k: int) -> list[Hit]:
        """The best pages for a query, best first; empty if no page has any of its words. Any text is a valid query."""
        match = match_expression(query)
        if not match:
            return []
        with self._lock:
            rows = self._database.execute(
                "SELECT rowid, bm25(pages, ?, ?) FROM pages WHERE pages MATCH ? ORDER BY 2 LIMIT ?",
                (TITLE_WEIGHT, TEXT_WEIGHT, match, NUM_CANDIDATES),
            ).fetchall()
        asked = words(query)
        scored = sorted(((with_title(-bm25, self._titles[row], asked), row) for row, bm25 in rows), reverse=True)
        hits = []
        for score, row in scored[:top_k]:
            hits.append(Hit(self._pages[row], round(score, 4)))
        return hits

    def close(self) -> None:
        """Frees the table."""
        self._database.close()


def read_pages(folder: Path) -> list[Page]:
    """The pages of a corpus's `pages.jsonl`.

    Raises:
      DataError: the file is missing, or a line is not a page; names file, line and field.
    """
    path = folder / "pages.jsonl"
    if not path.is_file():
        raise DataError(f"no pages at {path}: --corpus must name a folder with pages.jsonl and images.jsonl")
    pages = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error.msg}): each line must be one page") from error
        for key in ("title", "text"):
            if not isinstance(record, dict) or not isinstance(record.get(key), str):
                raise DataError(f"{path}:{number}: field {key!r} must be a string")
        name = record.get("id")
        pages.append(
            Page(record["title"], str(record.get("url") or ""), record["text"], "" if name is None else str(name))
        )
    return pages
