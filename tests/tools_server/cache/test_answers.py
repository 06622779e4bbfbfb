"""Cached entries, their lifetime, and upstream calls, in every mode of the cache with a real SQLite file."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mmsearch_jax.core.errors import DataError
from tools_server.cache.answers import Cache, key_of
from tools_server.cache.store import CacheEntry, SqliteStore, StoreError
from tools_server.cache.transfer import DOUBTFUL, count_entries
from tools_server.failures import SearchFailure
from tools_server.settings.answering import CacheSettings

REQUEST = {"tool": "text_search", "query": "velmora"}


class Calls:
    """An upstream call that counts and answers with its number."""

    def __init__(self, results: Any = ("hit",), seconds: float = 0.0):
        self.count, self._results, self._seconds = 0, list(results), seconds

    async def __call__(self) -> dict[str, Any]:
        self.count += 1
        number = self.count
        await asyncio.sleep(self._seconds)
        return {"results": self._results, "number": number}


def with_store(path: Path, talk: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def go() -> None:
        store = SqliteStore(path / "cache.sqlite")
        try:
            await talk(store)
        finally:
            await store.close()

    asyncio.run(go())


def test_an_answer_is_kept_across_restarts(tmp_path: Path):
    calls = Calls()

    async def talk(store: SqliteStore) -> None:
        reply, cached = await Cache(store, CacheSettings("live")).answer(REQUEST, calls)
        assert (reply["number"], cached) == (1, False)

    with_store(tmp_path, talk)

    async def again(store: SqliteStore) -> None:
        assert await Cache(store, CacheSettings("live")).answer(REQUEST, calls) == (
            {"results": ["hit"], "number": 1},
            True,
        )
        assert (await Cache(store, CacheSettings("live")).answer({**REQUEST, "query": "harn"}, calls))[1] is False

    with_store(tmp_path, again)
    assert calls.count == 2


@pytest.mark.parametrize(
    ("results", "age_s", "cached"), [(["hit"], 90, True), (["hit"], 110, False), ([], 9, True), ([], 11, False)]
)
def test_live_answers_grow_old_and_empty_ones_sooner(tmp_path: Path, results: list[str], age_s: float, cached: bool):
    async def talk(store: SqliteStore) -> None:
        await store.put(key_of(REQUEST), CacheEntry(REQUEST, {"results": results}, time.time() - age_s))
        cache = Cache(store, CacheSettings("live", ttl_s=100, negative_ttl_s=10))
        assert (await cache.answer(REQUEST, Calls()))[1] is cached

    with_store(tmp_path, talk)


def test_record_fetches_anew_and_replay_never_fetches(tmp_path: Path):
    calls = Calls()

    async def talk(store: SqliteStore) -> None:
        for _ in range(2):
            assert (await Cache(store, CacheSettings("record")).answer(REQUEST, calls))[1] is False
        replay = Cache(store, CacheSettings("replay"))
        assert await replay.answer(REQUEST, calls) == ({"results": ["hit"], "number": 2}, True)
        with pytest.raises(SearchFailure, match="not recorded") as caught:
            await replay.answer({**REQUEST, "query": "other"}, calls)
        assert (caught.value.code, calls.count) == ("not_recorded", 2)

    with_store(tmp_path, talk)


def test_replay_or_live_takes_answers_of_any_age_and_fetches_the_rest(tmp_path: Path):
    calls = Calls()

    async def talk(store: SqliteStore) -> None:
        await store.put(key_of(REQUEST), CacheEntry(REQUEST, {"results": []}, 0.0))
        cache = Cache(store, CacheSettings("replay-or-live"))
        assert (await cache.answer(REQUEST, calls))[1] is True
        assert (await cache.answer({"query": "new"}, calls))[1] is False
        assert (await cache.answer({"query": "new"}, calls))[1] is True

    with_store(tmp_path, talk)


@pytest.mark.parametrize("mode", ["off", "live", "record"])
def test_equal_queries_at_once_share_one_call(tmp_path: Path, mode: str):
    calls = Calls(seconds=0.1)

    async def talk(store: SqliteStore) -> None:
        cache = Cache(store, CacheSettings(mode))
        replies = await asyncio.gather(*(cache.answer(REQUEST, calls) for _ in range(50)))
        assert (calls.count, {reply["number"] for reply, _ in replies}) == (1, {1})
        assert (cache.misses, cache.shared) == (1, 49)

    with_store(tmp_path, talk)


def test_whoever_asked_first_may_go_away(tmp_path: Path):
    calls = Calls(seconds=0.2)

    async def talk(store: SqliteStore) -> None:
        cache = Cache(store, CacheSettings("live"))
        first = asyncio.create_task(cache.answer(REQUEST, calls))
        second = asyncio.create_task(cache.answer(REQUEST, calls))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second)[0]["number"] == 1
        assert calls.count == 1

    with_store(tmp_path, talk)


def test_failures_are_shared_and_not_kept(tmp_path: Path):
    async def fails() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        raise SearchFailure("upstream_error", "broken")

    async def talk(store: SqliteStore) -> None:
        cache = Cache(store, CacheSettings("live"))
        failures = await asyncio.gather(*(cache.answer(REQUEST, fails) for _ in range(3)), return_exceptions=True)
        assert [type(failure) for failure in failures] == [SearchFailure] * 3
        assert (await cache.answer(REQUEST, Calls()))[1] is False

    with_store(tmp_path, talk)


def test_a_disk_that_is_full_costs_the_recording_not_the_answer(tmp_path: Path):
    async def talk(store: SqliteStore) -> None:
        async def put(key: str, entry: CacheEntry) -> None:
            raise StoreError("SQLite: database or disk is full")

        store.put = put
        cache = Cache(store, CacheSettings("live"))
        assert (await cache.answer(REQUEST, Calls()))[0]["number"] == 1
        assert cache.write_errors == 1
        with pytest.raises(SearchFailure, match="could not be recorded"):
            await Cache(store, CacheSettings("record")).answer(REQUEST, Calls())

    with_store(tmp_path, talk)


def test_a_store_that_cannot_be_read_costs_a_call_not_the_answer(tmp_path: Path):
    async def talk(store: SqliteStore) -> None:
        async def lost(*_: object) -> Any:
            raise StoreError("Redis: ConnectionError")

        await store.put(key_of(REQUEST), CacheEntry(REQUEST, {"results": ["hit"]}))
        store.get = store.claim = store.release = lost
        cache, calls = Cache(store, CacheSettings("live")), Calls()
        assert await cache.answer(REQUEST, calls) == ({"results": ["hit"], "number": 1}, False)
        assert (calls.count, cache.read_errors) == (1, 2)
        with pytest.raises(SearchFailure, match="recorded answers cannot be read"):
            await Cache(store, CacheSettings("replay")).answer(REQUEST, calls)

    with_store(tmp_path, talk)


def test_a_full_disk_is_the_stores_own_error(tmp_path: Path):
    async def talk(store: SqliteStore) -> None:
        pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
        store._writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            await store.put("key", CacheEntry(REQUEST, {"results": ["x" * 100_000]}))
        assert await store.get("key") is None

    with_store(tmp_path, talk)


def test_a_damaged_file_says_what_to_do(tmp_path: Path):
    (tmp_path / "cache.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match=r"cannot use the cache .*cache.sqlite.*config.cache.path"):
        SqliteStore(tmp_path / "cache.sqlite")


def test_entries_come_back_whole_and_in_order(tmp_path: Path):
    entries = {
        key_of({"q": i}): CacheEntry({"q": i}, {"results": [{"title": "é\u2028\ud7ff"}]}, float(i)) for i in range(20)
    }

    async def talk(store: SqliteStore) -> None:
        for key, entry in entries.items():
            await store.put(key, entry)
        found = [(key, entry) async for key, entry in store.entries()]
        assert found == sorted(entries.items(), key=lambda item: item[0])
        assert dataclasses.asdict(found[0][1])["reply"] == {"results": [{"title": "é\u2028\ud7ff"}]}

    with_store(tmp_path, talk)


EMPTY = {"tool": "text_search", "results": [], "status": "no_results", "backend": "searxng"}


@pytest.mark.parametrize(
    ("change", "doubtful"),
    [
        ({}, True),
        ({"backend": "google_vision", "status": "no_detection"}, True),
        ({"empty_checked": True}, False),
        ({"backend": "local"}, False),
        ({"backend": "", "status": "no_detection"}, False),
        ({"results": [{"title": "a", "snippet": "b"}]}, False),
    ],
)
def test_an_empty_answer_that_was_never_checked_is_fetched_again_except_in_a_replay(
    tmp_path: Path, change: dict[str, Any], doubtful: bool
):
    async def talk(store: SqliteStore) -> None:
        await store.put(key_of(REQUEST), CacheEntry(REQUEST, {**EMPTY, **change}))
        counts = await count_entries(store)
        assert counts[DOUBTFUL] == doubtful
        for mode in ("replay", "live", "replay-or-live"):
            calls, cache = Calls(), Cache(store, CacheSettings(mode))
            assert (await cache.answer(REQUEST, calls))[1] is (mode == "replay" or not doubtful)
            assert cache.doubtful >= doubtful
            await store.put(key_of(REQUEST), CacheEntry(REQUEST, {**EMPTY, **change}))

    with_store(tmp_path, talk)
