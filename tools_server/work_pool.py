"""Threads for work on pixels and indexes, so that the event loop always answers; too much waiting is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tools_server.failures import SearchFailure

_T = TypeVar("_T")


class WorkPool:
    """A few threads and a bound on what waits for them.

    Args:
      num_threads: pieces of work done at once.
      max_waiting: pieces of work under way or waiting; more are refused.
    """

    def __init__(self, num_threads: int, max_waiting: int):
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="search")
        self._max_waiting, self._waiting = max_waiting, 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns.

        Raises:
          SearchFailure: overloaded; nothing was begun.
        """
        if self._waiting >= self._max_waiting:
            why = f"{self._waiting} searches wait already: try again later"
            raise SearchFailure("overloaded", why, passing=True, retry_after_s=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Waits for the work under way."""
        self._pool.shutdown()
