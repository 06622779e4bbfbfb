"""Worker processes for work on untrusted data, which may hang or run out of memory: killed after a timeout and replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import TimeoutError as WorkTimeout
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

_T = TypeVar("_T")
_STATM = Path("/proc/self/statm")


class WorkFailed(Exception):
    """The work failed: it took too long ("parse_timeout"), or its process died or raised ("unreadable")."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Workers:
    """Processes that each do one task at a time; they start with the first task.

    Args:
      num_processes: number of processes.
      timeout_s: seconds after which a task is abandoned and its process killed.
      max_memory_bytes: memory of one process in addition to its modules; a task that needs more fails. Linux only.
      preload: module with the work; loaded once, so that a process that replaces a killed one starts quickly.
    """

    def __init__(self, num_processes: int, timeout_s: float, max_memory_bytes: int, preload: str):
        # Not forked from the server: a forked copy would not have its threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([preload])
        self._timeout_s = timeout_s
        self._pool = ProcessPool(
            num_processes, context=context, initializer=_bound_memory, initargs=(max_memory_bytes,)
        )

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """What `work(*args)` returns; both must be picklable. Cancelling ends the process.

        Raises:
          WorkFailed: the work failed.
        """
        future = self._pool.schedule(work, args=args, timeout=self._timeout_s)
        try:
            return await asyncio.wrap_future(future)
        except WorkTimeout:
            raise WorkFailed("parse_timeout") from None
        except ProcessExpired:
            raise WorkFailed("unreadable") from None
        except Exception as error:
            # A parser may raise anything on a hostile page. The message is dropped: it may contain the page's text.
            raise WorkFailed("unreadable") from error

    async def close(self) -> None:
        """Ends all processes."""
        self._pool.stop()
        await asyncio.to_thread(self._pool.join)


def _bound_memory(max_bytes: int) -> None:
    if not _STATM.exists():  # only Linux enforces this limit
        return
    # In addition to what the process has reserved: linear algebra libraries reserve gigabytes on a large machine.
    limit = int(_STATM.read_text().split()[0]) * resource.getpagesize() + max_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
