"""Several servers with one real Redis: they share answers, calls and the budget (run by `make test-redis`)."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections
import pytest
from aiohttp.test_utils import TestClient, TestServer

from benchmarks.stand_ins.upstreams import Upstream
from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import ConfigError
from tests.tools_server.server_config import default_config, settings_of
from tools_server.assembly import assemble
from tools_server.cache.answers import Cache, key_of
from tools_server.cache.redis_store import RedisStore
from tools_server.cache.store import Allowance, CacheEntry, Spent
from tools_server.http_app import create_app
from tools_server.settings.answering import CacheSettings

pytestmark = pytest.mark.redis
REQUEST = {"tool": "text_search", "query": "velmora"}


class Redis:
    """A Redis process that belongs to the test."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self._folder = f"redis://127.0.0.1:{self.port}/0", folder

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed: make test-redis installs it"
        command = [program, "--port", str(self.port), "--save", "", "--appendonly", "yes", "--dir", str(self._folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("redis-server does not listen")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, redis: Redis):
    monkeypatch.setenv("SERPER_API_KEY", "k")
    monkeypatch.setenv("REDIS_URL", redis.url)


def settings(upstream: str) -> ml_collections.ConfigDict:
    config = default_config()
    config.text.backends, config.image.backends = ("serper",), ()
    config.cache.update({"mode": "live", "redis_url_env": "REDIS_URL"})
    config.backends.serper.update({"url": upstream, "calls_per_s": 1000.0, "attempt_timeout_s": 1.0})
    return config


def client(config: ml_collections.ConfigDict) -> TestClient:
    assembly = assemble(settings_of(config))
    return TestClient(TestServer(create_app(assembly.load, assembly.limits)))


async def ask(server: TestClient, query: str) -> tuple[int, Any]:
    response = await server.post(search_api.ROUTE_TEXT_SEARCH, json={"query": query})
    return response.status, await response.json()


def test_answers_survive_the_end_of_redis_and_grow_old(redis: Redis):
    async def go() -> None:
        store, brief = RedisStore(redis.url), RedisStore(redis.url, prefix="brief:", ttl_s=0.05)
        entry = CacheEntry(REQUEST, {"results": [{"title": "é\u2028"}]}, 7.5)
        await store.put("a", entry)
        await brief.put("a", entry)
        await asyncio.sleep(0.1)
        assert await brief.get("a") is None
        assert [item async for item in store.entries()] == [("a", entry)]
        await asyncio.sleep(1.1)  # appendonly's default: a sync per second
        redis.stop()
        redis.start()
        assert await store.get("a") == entry
        await store.close()
        await brief.close()

    asyncio.run(go())


def test_equal_queries_at_two_servers_are_paid_once():
    async def go() -> None:
        async with Upstream("serper", lambda n: "slow") as upstream:
            async with client(settings(upstream.url)) as one, client(settings(upstream.url)) as two:
                replies = await asyncio.gather(*(ask((one, two)[i % 2], f"q{i % 5}") for i in range(60)))
                assert {status for status, _ in replies} == {200}
                assert dict(upstream.paid) == {f"q{i}": 1 for i in range(5)}
                assert (await ask(two, "q0"))[1]["cached"] is True

    asyncio.run(go())


def test_two_servers_never_spend_more_than_the_budget():
    async def go() -> None:
        async with Upstream("serper") as upstream:
            config = settings(upstream.url)
            config.budget.update({"run": "grpo1", "max_calls": 7})
            async with client(config) as one, client(config) as two:
                replies = await asyncio.gather(*(ask((one, two)[i % 2], f"q{i}") for i in range(40)))
                assert sorted(status for status, _ in replies) == [200] * 7 + [402] * 33
                assert len(upstream.requests) == 7

    asyncio.run(go())


def test_an_answer_that_was_kept_while_this_server_looked_is_not_fetched_again(redis: Redis):
    async def go() -> None:
        store = RedisStore(redis.url)
        look = store.get
        looks = 0

        async def late(key: str) -> CacheEntry | None:
            nonlocal looks
            looks += 1
            if looks > 1:
                return await look(key)
            # Another server finishes between this read and the claim.
            await store.put(key, CacheEntry(REQUEST, {"results": ["theirs"]}))
            return None

        store.get = late

        async def ours() -> dict[str, Any]:
            raise AssertionError("it was paid for already")

        assert (await Cache(store, CacheSettings("live")).answer(REQUEST, ours))[0] == {"results": ["theirs"]}
        assert await look(key_of(REQUEST)) is not None
        await store.close()

    asyncio.run(go())


def test_a_server_whose_redis_is_gone_says_so_and_serves_again_when_it_is_back(redis: Redis):
    async def go() -> None:
        async with Upstream("serper") as upstream:
            config = settings(upstream.url)
            config.limits.deadline_s = 2.0
            async with client(config) as server:
                assert (await ask(server, "a"))[0] == 200
                redis.stop()
                status, body = await ask(server, "b")
                # If the budget cannot be read, no call is made.
                assert (status, body["code"], "budget cannot be read" in body["message"]) == (500, "internal", True)
                assert (await server.get(search_api.ROUTE_HEALTH)).status == 200
                redis.start()
                assert (await ask(server, "b"))[0] == 200

    asyncio.run(go())


def test_books_are_kept_by_run(redis: Redis):
    async def go() -> None:
        store = RedisStore(redis.url)
        assert await store.book("one", "serper", 1000, Allowance(max_micro_usd=1500))
        assert not await store.book("one", "serper", 1000, Allowance(max_micro_usd=1500))
        await store.unbook("one", "serper", 1000)
        assert await store.book("one", "serper", 1000, Allowance(max_micro_usd=1500))
        assert await store.spent("one") == Spent(2, 1000)
        assert await store.spent("two") == Spent(0, 0)
        await store.close()

    asyncio.run(go())


def test_an_address_that_is_none_says_how_one_looks():
    with pytest.raises(ConfigError, match="an address such as redis://HOST:6379/0"):
        RedisStore("localhost")
