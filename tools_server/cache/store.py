"""The store of answers and spending: its interface, and its implementation in SQLite.

Write-ahead logging and one transaction per write: a process that is killed loses nothing that was acknowledged and leaves no
partial write.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mmsearch_jax.core.errors import DataError

_T = TypeVar("_T")
_BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries(
  key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL, stored_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spending(
  run TEXT, backend TEXT, calls INTEGER NOT NULL, micro_usd INTEGER NOT NULL, PRIMARY KEY (run, backend));
"""


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """One kept answer.

    Attributes:
      request: what was asked, for people who inspect the cache.
      reply: a `SearchReply` as a JSON object.
      stored_s: time of storing, in seconds since 1970.
    """

    request: dict[str, Any]
    reply: dict[str, Any]
    stored_s: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a run has booked so far; money in millionths of a dollar, so that sums are exact."""

    calls: int
    micro_usd: int


@dataclasses.dataclass(frozen=True)
class Allowance:
    """What a run may book; 0 is no limit."""

    max_calls: int = 0
    max_micro_usd: int = 0

    def allows(self, spent: Spent, micro_usd: int) -> bool:
        """Whether one more call of this price stays within it."""
        return not (
            (self.max_calls and spent.calls + 1 > self.max_calls)
            or (self.max_micro_usd and spent.micro_usd + micro_usd > self.max_micro_usd)
        )


class StoreError(Exception):
    """The store failed: a full disk, a lost connection to Redis."""


class Store(Protocol):
    """Stores answers by key, and what each run has spent. Every method may raise `StoreError`."""

    async def get(self, key: str) -> CacheEntry | None:
        """The answer, or None."""
        ...

    async def put(self, key: str, entry: CacheEntry) -> None:
        """Stores an answer; once this returns, the answer survives the end of the process."""
        ...

    async def claim(self, key: str, seconds: float) -> bool:
        """Whether the caller is the only server that may fetch this answer now; others wait for it."""
        ...

    async def release(self, key: str) -> None:
        """Ends a claim."""
        ...

    async def book(self, run: str, backend: str, micro_usd: int, allowance: Allowance) -> bool:
        """Adds one call to a run's spending, if the allowance lets it; returns whether it did."""
        ...

    async def unbook(self, run: str, backend: str, micro_usd: int) -> None:
        """Subtracts money from a run's spending."""
        ...

    async def spent(self, run: str) -> Spent:
        """What a run has booked."""
        ...

    def entries(self) -> AsyncIterator[tuple[str, CacheEntry]]:
        """All answers."""
        ...

    async def close(self) -> None:
        """Closes files and connections."""
        ...


class SqliteStore:
    """A store in one SQLite file; several servers on one machine may share it.

    Args:
      path: the file; missing folders are created.

    Raises:
      DataError: it cannot be opened, or is not such a database.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = self._connect()
            self._writer = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"cannot use the cache {self._path}: {error}; move the file away or name another with --config.cache.path"
            ) from error
        # All writes on one thread: SQLite allows one writer at a time, and the event loop must not wait for the disk.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cache")

    async def get(self, key: str) -> CacheEntry | None:
        """See `Store`. A look-up by primary key takes microseconds, less than switching to a thread."""
        with _errors():
            row = self._reader.execute("SELECT request, reply, stored_s FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else CacheEntry(json.loads(row[0]), json.loads(row[1]), row[2])

    async def put(self, key: str, entry: CacheEntry) -> None:
        """See `Store`."""
        values = (key, _dump(entry.request), _dump(entry.reply), entry.stored_s)
        await self._write(lambda: self._writer.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", values))

    async def claim(self, key: str, seconds: float) -> bool:
        """See `Store`. Servers that share a file do not wait for one another (Redis does that)."""
        return True

    async def release(self, key: str) -> None:
        """See `Store`."""

    async def book(self, run: str, backend: str, micro_usd: int, allowance: Allowance) -> bool:
        """See `Store`."""

        def work() -> bool:
            if not allowance.allows(self._spent(self._writer, run), micro_usd):
                return False
            self._writer.execute(
                "INSERT INTO spending VALUES (?, ?, 1, ?) ON CONFLICT (run, backend) "
                "DO UPDATE SET calls = calls + 1, micro_usd = micro_usd + excluded.micro_usd",
                (run, backend, micro_usd),
            )
            return True

        return await self._write(work)

    async def unbook(self, run: str, backend: str, micro_usd: int) -> None:
        """See `Store`."""
        statement = "UPDATE spending SET micro_usd = micro_usd - ? WHERE run = ? AND backend = ?"
        await self._write(lambda: self._writer.execute(statement, (micro_usd, run, backend)))

    async def spent(self, run: str) -> Spent:
        """See `Store`."""
        with _errors():
            return self._spent(self._reader, run)

    async def entries(self) -> AsyncIterator[tuple[str, CacheEntry]]:
        """See `Store`; in the order of their keys, so that two exports of one cache are equal."""
        connection = self._connect()
        try:
            for key, request, reply, stored_s in connection.execute(
                "SELECT key, request, reply, stored_s FROM entries ORDER BY key"
            ):
                yield key, CacheEntry(json.loads(request), json.loads(reply), stored_s)
        finally:
            connection.close()

    async def close(self) -> None:
        """See `Store`."""
        self._pool.shutdown()
        self._reader.close()
        self._writer.close()

    async def _write(self, work: Callable[[], _T]) -> _T:
        def transaction() -> _T:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                result = work()
            except BaseException:
                if self._writer.in_transaction:  # a full disk has already ended the transaction
                    self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")
            return result

        with _errors():
            return await asyncio.get_running_loop().run_in_executor(self._pool, transaction)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        return connection

    @staticmethod
    def _spent(connection: sqlite3.Connection, run: str) -> Spent:
        row = connection.execute(
            "SELECT COALESCE(SUM(calls), 0), COALESCE(SUM(micro_usd), 0) FROM spending WHERE run = ?", (run,)
        ).fetchone()
        return Spent(*row)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"SQLite: {error}") from error


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
