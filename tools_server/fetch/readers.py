"""Page readers: one that fetches and reads pages here, and one that has Jina's r.jina.ai read them."""

from __future__ import annotations

import asyncio
from collections import Counter

from tools_server.fetch.extraction import page_text
from tools_server.fetch.fetcher import Fetched, Fetcher, FetchFailed
from tools_server.fetch.guard import Guard, Refused
from tools_server.fetch.workers import Workers, WorkFailed

MODULE_OF_WORK = page_text.__module__


class PagesReader:
    """Fetches pages and takes the text out of them.

    Args:
      max_chars: of a page's text.
      max_concurrency: pages under way at once; with the fetcher's bounds on one page it bounds the memory.
    """

    def __init__(self, fetcher: Fetcher, workers: Workers, max_chars: int, max_concurrency: int):
        self._fetcher, self._workers, self._max_chars = fetcher, workers, max_chars
        self._gate = asyncio.Semaphore(max_concurrency)
        self.outcomes: Counter[str] = Counter()

    async def read(self, url: str) -> str:
        """See `PageReader.read`."""
        outcome = "cancelled"
        try:
            async with self._gate:
                text = await self._workers.run(page_text, await self._fetch(url), self._max_chars)
            outcome = "ok" if text else "empty"
            return text
        except (FetchFailed, WorkFailed) as failed:
            outcome = failed.reason
            return ""
        finally:
            self.outcomes[outcome] += 1

    async def close(self) -> None:
        """See `PageReader.close`."""
        await self._workers.close()

    async def _fetch(self, url: str) -> Fetched:
        return await self._fetcher.get(url)


class JinaReader(PagesReader):
    """Has a service read the page; what comes back is taken as plain text, within the same bounds.

    Args:
      guard: looks at the page's own address before it is told to the service.
      base_url: the service, up to the part that takes the page's address.
      key: "" where the service is used without one.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        workers: Workers,
        max_chars: int,
        max_concurrency: int,
        guard: Guard,
        base_url: str,
        key: str,
    ):
        super().__init__(fetcher, workers, max_chars, max_concurrency)
        self._guard, self._base_url = guard, base_url.rstrip("/")
        self._headers = {"X-Return-Format": "text", **({"Authorization": f"Bearer {key}"} if key else {})}

    async def _fetch(self, url: str) -> Fetched:
        try:
            address = self._guard.check(url)
        except Refused as refused:
            raise FetchFailed(refused.reason) from None
        return await self._fetcher.get(f"{self._base_url}/{address}", self._headers)
