"""Threads for work on images and indexes, so that the event loop stays responsive. Work beyond a limit is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tools_server.failures import SearchFailure

_T = TypeVar("_T")


class WorkPool:
    """A few threads, and a limit on the tasks that wait for them.

    Args:
      num_threads: tasks that run at the same time.
      max_waiting: tasks in progress or waiting; further ones are refused.
    """

    def __init__(self, num_threads: int, max_waiting: int):
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="search")
        self._max_waiting, self._waiting = max_waiting, 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns.

        Raises:
          SearchFailure: overloaded; the task was not started.
        """
        if self._waiting >= self._max_waiting:
            why = f"{self._waiting} searches are already waiting: try again later"
            raise SearchFailure("overloaded", why, passing=True, retry_after_s=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Waits for the tasks in progress."""
        self._pool.shutdown()
