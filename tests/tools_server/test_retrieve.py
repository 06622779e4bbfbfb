"""`/retrieve` in place of Search-R1's retriever: whole rollout batches, empty ones, ids of the corpus, whole passages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mmsearch_jax.core.search_api import ROUTE_RETRIEVE
from tests.tools_server.server_config import default_config, settings_of
from tools_server.assembly import assemble
from tools_server.corpora.passage_build import build_index
from tools_server.http_app import create_app

LONG = " ".join(f"Sentence {i} of a long passage about the tower of Velmora." for i in range(40))
PASSAGES = [
    {"id": 7, "title": "Velmora", "text": LONG},
    {"id": "h-2", "title": "Harn", "text": "A city by the sea. It has a port."},
]


@pytest.fixture(params=["folder", "index"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "pages.jsonl").write_text("\n".join(map(json.dumps, PASSAGES)))
    if request.param == "folder":
        return folder
    build_index(tmp_path / "index", [folder], max_words=1000, show_progress=False)
    return tmp_path / "index"


def talk_to(corpus: Path, talk: Callable[[TestClient], Awaitable[None]]) -> None:
    config = default_config()
    config.corpus = str(corpus)
    assembly = assemble(settings_of(config))

    async def go() -> None:
        async with TestClient(TestServer(create_app(assembly.load, assembly.limits))) as client:
            await talk(client)

    asyncio.run(go())


async def retrieve(client: TestClient, **body: Any) -> Any:
    response = await client.post(ROUTE_RETRIEVE, json=body)
    return response.status, await response.json()


def test_a_rollout_batch_is_answered_query_by_query(corpus: Path):
    async def talk(client: TestClient) -> None:
        queries = ["port of Harn", "", "Velmora tower", "   ", "half \ud800", "x" * 5000] * 400
        status, body = await retrieve(client, queries=queries, topk=1, return_scores=True)
        assert (status, len(body["result"])) == (200, 2400)
        first = body["result"][:6]
        assert [len(found) for found in first] == [1, 0, 1, 0, 0, 0]
        assert [found[0]["document"]["id"] for found in (first[0], first[2])] == ["h-2", "7"]
        assert first[2][0]["document"]["contents"] == f'"Velmora"\n{LONG}'
        assert first[2][0]["score"] > 0
        assert body["result"][6:12] == first

    talk_to(corpus, talk)


def test_nobody_searched(corpus: Path):
    async def talk(client: TestClient) -> None:
        assert await retrieve(client, queries=[]) == (200, {"result": []})
        assert await retrieve(client, queries=["", ""], topk=2.0) == (200, {"result": [[], []]})
        for body in (
            {},
            {"queries": None},
            {"queries": [3]},
            {"queries": ["a"], "topk": 0},
            {"queries": [], "topk": "3"},
        ):
            assert (await retrieve(client, **body))[0] == 400

    talk_to(corpus, talk)
