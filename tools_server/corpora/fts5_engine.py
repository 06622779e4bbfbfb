"""Ranks by SQLite's FTS5: in the standard library, one file, exact BM25 over all passages with a word of the query.

Its time grows with the number of those passages, so a search has a time limit.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from tools_server.corpora.passage_store import Connections, create_database
from tools_server.failures import SearchFailure
from tools_server.hits import Page
from tools_server.ranking import TEXT_WEIGHT, TITLE_WEIGHT, TOKENIZER, indexable, match_expression

FILE = "fts5.sqlite"
_STEPS_BETWEEN_LOOKS = 20_000
"""Steps of SQLite's virtual machine between two checks of the clock: about a millisecond."""


class Fts5Writer:
    """Fills the table."""

    def __init__(self, folder: Path):
        self._database = create_database(
            folder / FILE, f"CREATE VIRTUAL TABLE ranked USING fts5(title, text, content='', tokenize=\"{TOKENIZER}\")"
        )

    def add(self, first: int, pages: Sequence[Page]) -> None:
        """See `engines.Writer`."""
        rows = ((first + i, indexable(page.title), indexable(page.text)) for i, page in enumerate(pages))
        self._database.executemany("INSERT INTO ranked(rowid, title, text) VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Merges the table's segments into one, which makes searches fast."""
        self._database.execute("INSERT INTO ranked(ranked) VALUES ('optimize')")
        self._database.execute("COMMIT")
        self._database.close()


class Fts5Engine:
    """Searches the table."""

    def __init__(self, folder: Path, timeout_s: float):
        self._connections, self._timeout_s = Connections(folder / FILE), timeout_s

    def search(self, query: str, count: int) -> list[tuple[int, float]]:
        """See `engines.PassageEngine`."""
        match = match_expression(query)
        if not match:
            return []
        database, deadline = self._connections.get(), time.monotonic() + self._timeout_s
        database.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
        try:
            return database.execute(
                "SELECT rowid, -bm25(ranked, ?, ?) FROM ranked WHERE ranked MATCH ? ORDER BY 2 DESC LIMIT ?",
                (TITLE_WEIGHT, TEXT_WEIGHT, match, count),
            ).fetchall()
        except sqlite3.OperationalError as error:
            if time.monotonic() <= deadline:
                raise
            raise SearchFailure(
                "upstream_timeout",
                f"FTS5 found nothing in {self._timeout_s:g} s: the query's words are in too many passages. Ask for "
                "rarer words, or build the index with --engine tantivy",
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._connections.close()
