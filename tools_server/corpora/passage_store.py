"""Passages on disk by number, in SQLite; safe to read from several threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools_server.hits import Page

FILE = "passages.sqlite"
VERSION = f"SQLite {sqlite3.sqlite_version}"
_READ = 4096
_MMAP_BYTES = 2**40


def create_database(path: Path, schema: str) -> sqlite3.Connection:
    """A new database that is filled in one transaction. Fast, but not safe against a crash: a build discards partial files."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA page_size=8192; {schema}; BEGIN")
    return database


class Connections:
    """Read-only connections to a database, one for each thread, so that they can search at the same time."""

    def __init__(self, path: Path):
        self._path, self._local, self._lock = path, threading.local(), threading.Lock()
        self._opened: list[sqlite3.Connection] = []

    def get(self) -> sqlite3.Connection:
        """This thread's connection."""
        found = getattr(self._local, "connection", None)
        if found is None:
            address = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
            found = sqlite3.connect(address, uri=True, check_same_thread=False)
            found.execute(f"PRAGMA mmap_size={_MMAP_BYTES}")
            self._local.connection = found
            with self._lock:
                self._opened.append(found)
        return found

    def close(self) -> None:
        """Closes them all; none may be in use."""
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()


class PassageWriter:
    """Appends passages; the first is number 0."""

    def __init__(self, folder: Path):
        self._database = create_database(
            folder / FILE, "CREATE TABLE passages(number INTEGER PRIMARY KEY, id TEXT, title TEXT, url TEXT, text TEXT)"
        )

    def add(self, first: int, pages: Sequence[Page]) -> None:
        """Writes pages as numbers `first`, `first` + 1, ..."""
        rows = ((first + i, page.id, page.title, page.url, page.text) for i, page in enumerate(pages))
        self._database.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Completes the file."""
        self._database.execute("COMMIT")
        self._database.close()


class PassageStore:
    """Reads passages."""

    def __init__(self, folder: Path):
        self._connections = Connections(folder / FILE)

    def get(self, numbers: Sequence[int]) -> list[Page]:
        """The passages with these numbers, in their order.

        Raises:
          KeyError: there is none with a number.
        """
        marks = ",".join("?" * len(numbers))
        rows = self._connections.get().execute(
            f"SELECT number, title, url, text, id FROM passages WHERE number IN ({marks})", numbers
        )
        found = {number: Page(*fields) for number, *fields in rows}
        return [found[number] for number in numbers]

    def read(self, first: int = 0) -> Iterator[Page]:
        """All passages from a number on."""
        while True:
            rows = (
                self._connections.get()
                .execute(
                    "SELECT title, url, text, id FROM passages WHERE number >= ? ORDER BY number LIMIT ?",
                    (first, _READ),
                )
                .fetchall()
            )
            yield from (Page(*fields) for fields in rows)
            if len(rows) < _READ:
                return
            first += len(rows)

    def close(self) -> None:
        """Closes the file."""
        self._connections.close()
