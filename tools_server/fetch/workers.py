"""Worker processes for work that strangers' data may drive into a hang or out of memory: killed in time, and replaced."""

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
    """The work gave nothing: it took too long ("parse_timeout"), or its process died or raised ("unreadable")."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Workers:
    """Processes that each do one piece of work at a time; started at the first one.

    Args:
      num_processes: at once.
      timeout_s: after which a piece of work is given up and its process killed.
      max_memory_bytes: what one process may take on top of its modules; asking for more fails that piece of work. Linux only.
      preload: module that holds the work; loaded once, so that a process which replaces a killed one starts at once.
    """

    def __init__(self, num_processes: int, timeout_s: float, max_memory_bytes: int, preload: str):
        # Not forked from the server itself, whose threads a copy would not have.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([preload])
        self._timeout_s = timeout_s
        self._pool = ProcessPool(
            num_processes, context=context, initializer=_bound_memory, initargs=(max_memory_bytes,)
        )

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """What `work(*args)` returns; both must be picklable. Cancelling ends the process.

        Raises:
          WorkFailed: it returned nothing.
        """
        future = self._pool.schedule(work, args=args, timeout=self._timeout_s)
        try:
            return await asyncio.wrap_future(future)
        except WorkTimeout:
            raise WorkFailed("parse_timeout") from None
        except ProcessExpired:
            raise WorkFailed("unreadable") from None
        except Exception as error:
            # Whatever a parser raises on a hostile page; the page is at fault, and its text may stand in the message.
            raise WorkFailed("unreadable") from error

    async def close(self) -> None:
        """Ends all processes."""
        self._pool.stop()
        await asyncio.to_thread(self._pool.join)


def _bound_memory(max_bytes: int) -> None:
    if not _STATM.exists():  # not Linux, where alone the kernel keeps to this limit
        return
    # On top of what the process has: linear algebra, which the server's modules load, reserves gigabytes on a large machine.
    limit = int(_STATM.read_text().split()[0]) * resource.getpagesize() + max_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
