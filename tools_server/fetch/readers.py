"""Page readers: one fetches and reads pages itself, the other asks Jina's r.jina.ai to read them."""

from __future__ import annotations

import asyncio
from collections import Counter

from tools_server.fetch.extraction import page_text
from tools_server.fetch.fetcher import Fetched, Fetcher, FetchFailed
from tools_server.fetch.guard import Guard, Refused
from tools_server.fetch.workers import Workers, WorkFailed

MODULE_OF_WORK = page_text.__module__


class PagesReader:
    """Fetches pages and extracts their text.

    Args:
      max_chars: of a page's text.
      max_concurrency: pages in progress at the same time; together with the fetcher's limits of one page it limits memory.
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
    """Asks a service to read the page. Its reply is treated as plain text, within the same limits.

    Args:
      guard: checks the page's address before it is sent to the service.
      base_url: address of the service, up to the part that takes the page's address.
      key: "" if the service is used without one.
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
