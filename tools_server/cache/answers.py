"""Answers from the store if the mode allows it, else from the call. Equal queries at the same time share one call."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tools_server.cache.store import CacheEntry, Store, StoreError
from tools_server.failures import SearchFailure
from tools_server.settings.answering import CacheSettings
from tools_server.settings.sources import LOCAL

_log = logging.getLogger("tools_server")

_POLL_S = 0.05
_RECENT = 1024
"""Answers that are kept in memory, in front of the store: the rollouts of a group often ask the same queries."""

Reply = dict[str, Any]


def key_of(request: dict[str, Any]) -> str:
    """The key of an answer: a hash of everything that decides it."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def is_doubtful(reply: Reply) -> bool:
    """Whether a kept answer may be a provider's failure that was taken for "nothing found".

    It has no results, comes from a web backend, and was kept before empty answers were checked (`SearchReply.empty_checked`).
    """
    of_web = reply.get("backend") not in ("", LOCAL, None)
    return of_web and not reply.get("results") and not reply.get("empty_checked")


class Cache:
    """A store and how it is used.

    Args:
      settings: its mode is one of
        off: nothing is kept; equal queries at the same time still share a call.
        live: answers are kept, and fetched again when they are too old.
        record: every query is fetched, and kept.
        replay: nothing is fetched; a query that was not recorded fails.
        replay-or-live: an answer of any age is used, others are fetched and kept.
        A doubtful empty answer (`is_doubtful`) is fetched again in the modes that fetch; `doubtful` counts them.
      call_s: maximum seconds of a call; also the longest wait for another server's call.
    """

    def __init__(self, store: Store | None, settings: CacheSettings, call_s: float = 60.0):
        self.mode = settings.mode
        self._store, self._settings, self._call_s = None if settings.mode == "off" else store, settings, call_s
        self._in_progress: dict[str, asyncio.Task[Reply]] = {}
        self._recent: collections.OrderedDict[str, CacheEntry] = collections.OrderedDict()
        self.hits = self.misses = self.shared = self.read_errors = self.write_errors = self.doubtful = 0

    async def answer(self, request: dict[str, Any], call: Callable[[], Awaitable[Reply]]) -> tuple[Reply, bool]:
        """The answer to a request, and whether it came from the store.

        Args:
          request: everything that decides the answer, as JSON.
          call: fetches it. It runs to its end even if the first caller disconnects: it is paid for, and others may wait for it.

        Raises:
          SearchFailure: what `call` raised, or not_recorded.
        """
        key = key_of(request)
        kept = await self._look(key)
        if kept is not None:
            self.hits += 1
            return kept, True
        if self.mode == "replay":
            raise SearchFailure(
                "not_recorded", "this query was not recorded: record it, or set --config.cache.mode to replay-or-live"
            )
        task = self._in_progress.get(key)
        if task is None:
            self.misses += 1
            task = asyncio.create_task(self._fetch(key, request, call))
            self._in_progress[key] = task
            task.add_done_callback(lambda _: self._in_progress.pop(key, None))
        else:
            self.shared += 1
        return await asyncio.shield(task), False

    async def drain(self) -> None:
        """Waits for the calls in progress."""
        await asyncio.gather(*self._in_progress.values(), return_exceptions=True)

    async def _look(self, key: str) -> Reply | None:
        if self._store is None or self.mode == "record":
            return None
        try:
            entry = self._recent.get(key) or await self._store.get(key)
        except StoreError as error:
            self.read_errors += 1
            if self.mode == "replay":
                raise SearchFailure("internal", f"the recorded answers cannot be read: {error}") from error
            _log.warning("a kept answer could not be looked up: %s", error)
            return None
        if entry is not None and is_doubtful(entry.reply):
            self.doubtful += 1
            if self.mode != "replay":  # a replay repeats what was recorded
                entry = None
        if entry is None or (self.mode == "live" and self._too_old(entry)):
            self._recent.pop(key, None)
            return None
        self._recent[key] = entry
        self._recent.move_to_end(key)
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return entry.reply

    def _too_old(self, entry: CacheEntry) -> bool:
        limit = self._settings.ttl_s if entry.reply.get("results") else self._settings.negative_ttl_s
        return time.time() - entry.stored_s > limit

    async def _fetch(self, key: str, request: dict[str, Any], call: Callable[[], Awaitable[Reply]]) -> Reply:
        store = self._store
        if store is None:
            return await call()
        while not await self._claim(store, key):
            await asyncio.sleep(_POLL_S)  # another server is fetching it
            kept = await self._look(key)
            if kept is not None:
                return kept
        try:
            # The previous holder of the claim may just have stored the answer.
            kept = await self._look(key)
            if kept is None:
                kept = await call()
                await self._keep(store, key, CacheEntry(request, kept))
            return kept
        finally:
            await self._release(store, key)

    async def _claim(self, store: Store, key: str) -> bool:
        try:
            return await store.claim(key, self._call_s)
        except StoreError as error:
            # Paying twice is better than no answer.
            _log.warning("an answer could not be claimed: %s", error)
            return True

    async def _release(self, store: Store, key: str) -> None:
        try:
            await store.release(key)
        except StoreError as error:
            _log.warning("a claim could not be released; it expires after %g s: %s", self._call_s, error)

    async def _keep(self, store: Store, key: str, entry: CacheEntry) -> None:
        try:
            await store.put(key, entry)
        except StoreError as error:
            self.write_errors += 1
            if self.mode == "record":
                raise SearchFailure("internal", f"the answer could not be recorded: {error}") from error
            # The answer is valid and paid for: it is returned, but not stored.
            _log.warning("an answer could not be kept: %s", error)
