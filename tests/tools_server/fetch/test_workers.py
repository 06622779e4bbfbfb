"""Worker processes: a task that hangs, dies or uses too much memory does not affect others."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from tools_server.fetch.workers import Workers, WorkFailed

GIB = 2**30


def with_workers(talk: Callable[[Workers], Awaitable[None]], timeout_s: float = 30.0, num_processes: int = 1) -> None:
    async def go() -> None:
        workers = Workers(num_processes, timeout_s, 2 * GIB, "json")
        try:
            await talk(workers)
        finally:
            await workers.close()

    asyncio.run(go())


def test_work_is_done_in_another_process():
    async def talk(workers: Workers) -> None:
        assert await workers.run(os.getpid) != os.getpid()
        assert await workers.run(max, 3, 5) == 5

    with_workers(talk)


def test_work_that_hangs_is_killed_and_its_process_replaced():
    async def talk(workers: Workers) -> None:
        first = await workers.run(os.getpid)
        with pytest.raises(WorkFailed, match="parse_timeout"):
            await workers.run(time.sleep, 3600)
        second = await workers.run(os.getpid)
        assert second != first
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)

    with_workers(talk, timeout_s=2.0)


def test_the_event_loop_goes_on_while_work_hangs():
    async def talk(workers: Workers) -> None:
        hanging = asyncio.ensure_future(workers.run(time.sleep, 3600))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not hanging.done()
        with pytest.raises(WorkFailed, match="parse_timeout"):
            await hanging

    with_workers(talk, timeout_s=2.0)


def test_cancelling_frees_the_process():
    async def talk(workers: Workers) -> None:
        await workers.run(os.getpid)
        hanging = asyncio.ensure_future(workers.run(time.sleep, 3600))
        await asyncio.sleep(0.2)
        hanging.cancel()
        assert await workers.run(max, 3, 5) == 5

    with_workers(talk)


def test_a_process_that_dies_is_replaced():
    async def talk(workers: Workers) -> None:
        process = await workers.run(os.getpid)
        with pytest.raises(WorkFailed, match="unreadable"):
            await workers.run(os.kill, process, signal.SIGKILL)
        assert await workers.run(max, 3, 5) == 5

    with_workers(talk)


@pytest.mark.parametrize(("work", "argument"), [(bytearray, 4 * GIB), (int, "no number")])
def test_work_that_raises_or_wants_too_much_memory_has_no_result(work: Callable[..., object], argument: object):
    async def talk(workers: Workers) -> None:
        with pytest.raises(WorkFailed, match="unreadable"):
            await workers.run(work, argument)
        assert await workers.run(max, 3, 5) == 5

    with_workers(talk)
