"""SIGKILL during writes, twenty times: the file stays valid, and no acknowledged entry is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tools_server.cache.answers import key_of
from tools_server.cache.store import SqliteStore

ROOT = Path(__file__).parents[3]


def killed_writer(path: Path, start: int, seconds: float) -> list[int]:
    """Acknowledged numbers of a writer that was killed after `seconds` of writing."""
    command = [sys.executable, "-m", "tests.tools_server.cache.writer", str(path), str(start)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    lines = (first + rest).splitlines(keepends=True)
    return [int(line) for line in lines if line.endswith("\n")]


def check(path: Path, acknowledged: set[int]) -> None:
    async def go() -> None:
        store = SqliteStore(path)
        for number in acknowledged:
            entry = await store.get(key_of({"query": number}))
            assert entry is not None and entry.reply["number"] == number
        # Calls are charged before answers are written, so there are never fewer calls than answers.
        assert (await store.spent("run")).calls >= len(acknowledged)
        await store.close()

    asyncio.run(go())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_twenty_kills_lose_nothing(tmp_path: Path):
    path, chance, acknowledged = tmp_path / "cache.sqlite", random.Random(5), set[int]()
    for i in range(20):
        acknowledged |= set(killed_writer(path, i * 1_000_000, chance.uniform(0.0, 0.1)))
        check(path, acknowledged if i % 10 == 9 else set(sorted(acknowledged)[-200:]))
    assert len(acknowledged) > 20 * 8
