"""The application in this process: what happens when searches break, wait or are slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from mmsearch_jax import protocol
from tests.tools_server.small_corpus import write_corpus
from tools_server.app import Limits, SearchTools, create_app


def with_client(
    load: Callable[[], SearchTools], limits: Limits, talk: Callable[[TestClient], Coroutine[Any, Any, None]]
) -> None:
    async def go() -> None:
        async with TestClient(TestServer(create_app(load, limits))) as client:
            await talk(client)

    asyncio.run(go())


def test_a_search_that_breaks_is_an_internal_error_without_its_secrets(tmp_path: Path):
    tools = SearchTools(write_corpus(tmp_path / "corpus"))

    def broken(request: object) -> Any:
        raise RuntimeError("a path nobody should read")

    tools.text_search = broken

    async def talk(client: TestClient) -> None:
        response = await client.post(protocol.ROUTE_TEXT_SEARCH, json={"query": "a"})
        body = await response.json()
        assert (response.status, body["code"]) == (500, "internal")
        assert "nobody" not in body["message"]

    with_client(lambda: tools, Limits(), talk)


def test_when_too_much_waits_the_server_says_so_at_once_and_stays_alive(tmp_path: Path):
    tools = SearchTools(write_corpus(tmp_path / "corpus"))
    search, gate = tools.text_search, threading.Event()

    def slow(request: Any) -> Any:
        gate.wait(10)
        return search(request)

    tools.text_search = slow

    async def talk(client: TestClient) -> None:
        async def post() -> tuple[int, Any]:
            response = await client.post(protocol.ROUTE_TEXT_SEARCH, json={"query": "velmora"})
            return response.status, await response.json()

        waiting = asyncio.gather(*(post() for _ in range(3)))
        while "tools_requests_in_flight 4" not in await (await client.get(protocol.ROUTE_METRICS)).text():
            await asyncio.sleep(0.01)
        status, body = await post()
        assert (status, body["code"]) == (503, "overloaded")
        assert (await client.get(protocol.ROUTE_HEALTH)).status == 200
        gate.set()
        assert [status for status, _ in await waiting] == [200, 200, 200]

    with_client(lambda: tools, Limits(max_waiting=3), talk)
