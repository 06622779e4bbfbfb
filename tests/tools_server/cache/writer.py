"""Writes to a cache endlessly and prints the acknowledged keys; for the test that kills it."""

import asyncio
import sys

from tools_server.cache.answers import key_of
from tools_server.cache.store import Allowance, CacheEntry, SqliteStore


async def main(path: str, start: int) -> None:
    store = SqliteStore(path)
    number = start

    async def one(number: int) -> None:
        request = {"query": number}
        assert await store.book("run", "serper", 1000, Allowance())
        await store.put(key_of(request), CacheEntry(request, {"results": ["x" * 2000], "number": number}))
        print(number, flush=True)

    while True:
        await asyncio.gather(*(one(number + i) for i in range(8)))
        number += 8


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
