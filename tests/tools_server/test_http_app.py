"""The application in this process: its behaviour when searches fail, wait or are slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mmsearch_jax.core import search_api
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import write_corpus
from tools_server.assembly import assemble
from tools_server.backends.local import Corpus
from tools_server.http_app import create_app


def with_client(corpus: Path, talk: Callable[[TestClient], Coroutine[Any, Any, None]], **limits: Any) -> None:
    config = default_config()
    config.corpus = str(corpus)
    config.limits.update(limits)
    assembly = assemble(settings_of(config))

    async def go() -> None:
        async with TestClient(TestServer(create_app(assembly.load, assembly.limits))) as client:
            await talk(client)

    asyncio.run(go())


def test_a_search_that_breaks_is_an_internal_error_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> Any:
        raise RuntimeError("a path nobody should read")

    monkeypatch.setattr(Corpus, "search_text", broken)

    async def talk(client: TestClient) -> None:
        response = await client.post(search_api.ROUTE_TEXT_SEARCH, json={"query": "a"})
        body = await response.json()
        assert (response.status, body["code"]) == (500, "internal")
        assert "nobody" not in body["message"]

    with_client(write_corpus(tmp_path / "corpus"), talk)


def test_when_too_much_waits_the_server_says_so_at_once_and_stays_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    search, gate = Corpus.search_text, threading.Event()

    def slow(corpus: Corpus, *asked: Any) -> Any:
        gate.wait(10)
        return search(corpus, *asked)

    monkeypatch.setattr(Corpus, "search_text", slow)

    async def talk(client: TestClient) -> None:
        async def post(query: str) -> tuple[int, Any]:
            response = await client.post(search_api.ROUTE_TEXT_SEARCH, json={"query": query})
            return response.status, await response.json()

        waiting = asyncio.gather(*(post(f"velmora {i}") for i in range(3)))
        while "tools_requests_in_flight 4" not in await (await client.get(search_api.ROUTE_METRICS)).text():
            await asyncio.sleep(0.01)
        status, body = await post("another")
        assert (status, body["code"]) == (503, "overloaded")
        assert (await client.get(search_api.ROUTE_HEALTH)).status == 200
        gate.set()
        assert [status for status, _ in await waiting] == [200, 200, 200]

    with_client(write_corpus(tmp_path / "corpus"), talk, max_waiting=3)
