"""The server with indexes on disk: the same routes, words, vectors and pictures; one line for any other folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mmsearch_jax.commands import main as cli
from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.core.search_api import SearchReply
from tests.tools_server.corpora.small_index import Endpoint, write_model, write_passages, write_towns
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import COLOURS, PAGES, bands, encode, write_corpus
from tools_server.assembly import assemble
from tools_server.corpora.embedders import EmbedderSpec
from tools_server.corpora.passage_build import build_index
from tools_server.corpora.picture_build import build_picture_index
from tools_server.hits import Page
from tools_server.http_app import create_app

Post = Callable[[str, Any], Coroutine[Any, Any, tuple[int, Any]]]


def with_server(
    talk: Callable[[Post], Coroutine[Any, Any, None]], corpus: Path, deadline_s: float = 30.0, **local: Any
) -> None:
    config = default_config()
    config.corpus, config.limits.deadline_s = str(corpus), deadline_s
    config.local.update(local)
    assembly = assemble(settings_of(config))

    async def go() -> None:
        async with TestClient(TestServer(create_app(assembly.load, assembly.limits))) as client:

            async def post(route: str, body: Any) -> tuple[int, Any]:
                response = await client.post(route, json=body)
                return response.status, await response.json()

            await talk(post)

    asyncio.run(go())


@pytest.mark.parametrize("engine", ["fts5", "tantivy"])
def test_an_index_answers_every_text_route(tmp_path: Path, engine: str):
    build_index(tmp_path / "out", [write_passages(tmp_path / "a.jsonl")], engine, show_progress=False)

    async def talk(post: Post) -> None:
        status, body = await post(search_api.ROUTE_TEXT_SEARCH, {"query": "new velmora anthem", "top_k": 2})
        reply = SearchReply.from_json(body)
        assert status == 200 and reply.backend == "local" and len(reply.results) == 2
        assert (reply.results[0].title, reply.results[0].snippet) == (PAGES[1].title, "National anthem: Rise, O Hills")
        status, body = await post(
            search_api.ROUTE_RETRIEVE, {"queries": ["tower masons"], "topk": 1, "return_scores": True}
        )
        assert status == 200 and body["result"][0][0]["document"]["contents"].startswith(
            '"Thé Tower"\nCountry: Velmora'
        )
        status, body = await post(
            search_api.ROUTE_IMAGE_SEARCH, {"image_base64": encode(bands(COLOURS["Flag of Velmora"]))}
        )
        assert (status, body["status"]) == (200, "no_results")

    with_server(talk, tmp_path / "out")


LONG = Page(
    "Tower",
    "https://x.example/tower",
    "\n".join(f"Note {i}: the tower was painted by the guild of year {i}." for i in range(40))
    + "\nIts height is 330 metres. Height of the masts: 24 metres.",
)


@pytest.mark.parametrize("chars", [160, 60, 0])
def test_a_folder_an_index_and_the_command_show_the_same_of_a_page(tmp_path: Path, chars: int, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    pages = [LONG, *PAGES]
    write_passages(corpus / "pages.jsonl", pages)
    build_index(tmp_path / "out", [corpus], max_words=1000, show_progress=False)
    queries = ("height of the tower", "new velmora anthem", "tower of velmora in 1889", "capital letters")
    shown: dict[Path, list[tuple[str, str]]] = {corpus: [], tmp_path / "out": []}
    for folder, found in shown.items():

        async def talk(post: Post, found: list[tuple[str, str]] = found) -> None:
            for query in queries:
                status, body = await post(search_api.ROUTE_TEXT_SEARCH, {"query": query, "top_k": 1})
                (result,) = SearchReply.from_json(body).results
                assert status == 200
                found.append((result.title, result.snippet))
                whole = await post(search_api.ROUTE_RETRIEVE, {"queries": [query], "topk": 1})
                text = next(page.text for page in pages if page.title == result.title)
                assert whole[1]["result"][0][0]["contents"] == f'"{result.title}"\n{text}'

        with_server(talk, folder, extract_chars=chars)
    assert shown[corpus] == shown[tmp_path / "out"]
    for query, (title, snippet) in zip(queries, shown[corpus], strict=True):
        command = ["index", "search", str(tmp_path / "out"), query, "--top-k", "1", "--extract-chars", str(chars)]
        assert cli.main(command) == 0
        head, *lines = capsys.readouterr().out.splitlines()
        assert title in head and [line.strip() for line in lines] == snippet.split("\n")
        assert len(snippet) <= (chars or 800) and "height of the tower" not in snippet
    assert ("\n" in shown[corpus][1][1]) == (chars == 0)


def test_another_length_of_extracts_is_another_answer_in_the_cache(tmp_path: Path):
    build_index(tmp_path / "out", [write_passages(tmp_path / "a.jsonl")], show_progress=False)
    identities = []
    for chars in (160, 0):
        config = default_config()
        config.corpus, config.local.extract_chars = str(tmp_path / "out"), chars
        identities.append(assemble(settings_of(config)).load().parts.identity["text"])
    assert identities[0] != identities[1]


def test_many_searches_at_once_are_all_answered_right(tmp_path: Path):
    build_index(tmp_path / "out", [write_towns(tmp_path / "a.jsonl", 500)], show_progress=False)

    async def talk(post: Post) -> None:
        queries = [f"mayor of town t{i}x" for i in range(0, 500, 5)]
        asked = [post(search_api.ROUTE_TEXT_SEARCH, {"query": query, "top_k": 1}) for query in queries]
        found = [SearchReply.from_json(body).results[0].title for _, body in await asyncio.gather(*asked)]
        assert found == [f"Town t{i}x" for i in range(0, 500, 5)]

    with_server(talk, tmp_path / "out")


def test_vectors_are_searched_by_the_local_model(tmp_path: Path):
    write_model(tmp_path / "model")
    spec = EmbedderSpec(str(tmp_path / "model"))
    build_index(tmp_path / "out", [write_passages(tmp_path / "a.jsonl")], embedder=spec, show_progress=False)

    async def talk(post: Post) -> None:
        status, body = await post(search_api.ROUTE_TEXT_SEARCH, {"query": "masons tower", "top_k": 5})
        assert status == 200 and len(body["results"]) == 5  # words without vectors find only one
        assert body["results"][0]["title"] == "Thé Tower"

    with_server(talk, tmp_path / "out")


def test_an_embedder_that_is_gone_is_a_typed_failure_and_words_alone_still_serve(tmp_path: Path):
    source = write_passages(tmp_path / "a.jsonl")

    async def build() -> None:
        async with Endpoint() as endpoint:
            spec = EmbedderSpec(endpoint.url, "small")
            await asyncio.to_thread(build_index, tmp_path / "out", [source], embedder=spec, show_progress=False)

    asyncio.run(build())
    asked = {"query": "masons tower"}

    async def fails(post: Post) -> None:
        status, body = await post(search_api.ROUTE_TEXT_SEARCH, asked)
        assert status in (502, 504) and body["code"] in ("upstream_error", "upstream_timeout")

    async def serves(post: Post) -> None:
        status, body = await post(search_api.ROUTE_TEXT_SEARCH, asked)
        assert status == 200 and body["results"][0]["title"] == "Thé Tower"

    with_server(fails, tmp_path / "out", deadline_s=0.5)
    with_server(serves, tmp_path / "out", by="bm25")


def test_pictures_come_from_an_index_of_their_own(tmp_path: Path):
    build_index(tmp_path / "out", [write_passages(tmp_path / "a.jsonl")], show_progress=False)
    build_picture_index(tmp_path / "pictures", write_corpus(tmp_path / "corpus"), show_progress=False)

    async def talk(post: Post) -> None:
        status, body = await post(
            search_api.ROUTE_IMAGE_SEARCH, {"image_base64": encode(bands(COLOURS["Flag of Harland"]))}
        )
        reply = SearchReply.from_json(body)
        assert status == 200 and reply.results[0].title == "Flag of Harland"
        assert reply.results[0].thumbnail_base64

    with_server(talk, tmp_path / "out", pictures=str(tmp_path / "pictures"))


def test_a_cached_answer_is_not_given_for_another_index(tmp_path: Path):
    for name, pages in (("one", PAGES[:1]), ("two", PAGES[1:2])):
        build_index(tmp_path / name, [write_passages(tmp_path / "a.jsonl", pages)], show_progress=False)
    config = default_config()
    config.cache.mode, config.cache.path = "live", str(tmp_path / "cache.sqlite")
    found = []
    for name in ("one", "two", "one"):
        config.corpus = str(tmp_path / name)
        assembly = assemble(settings_of(config))

        async def go(assembly: Any = assembly) -> None:
            async with TestClient(TestServer(create_app(assembly.load, assembly.limits))) as client:
                response = await client.post(search_api.ROUTE_TEXT_SEARCH, json={"query": "velmora capital"})
                reply = SearchReply.from_json(await response.json())
                found.append((reply.results[0].title, reply.cached))

        asyncio.run(go())
    assert found == [("Velmora", False), ("New Velmora", False), ("Velmora", True)]


def test_a_folder_that_is_neither_says_what_to_do(tmp_path: Path):
    config = default_config()
    config.corpus = str(tmp_path)
    with pytest.raises(DataError, match=r"a folder with pages.jsonl \(and images.jsonl\), or an index"):
        assemble(settings_of(config)).load()


def test_an_index_of_pictures_is_no_corpus_and_a_way_without_vectors_is_named(tmp_path: Path):
    build_picture_index(tmp_path / "pictures", write_corpus(tmp_path / "corpus"), show_progress=False)
    build_index(tmp_path / "out", [write_passages(tmp_path / "a.jsonl")], show_progress=False)
    config = default_config()
    config.corpus = str(tmp_path / "pictures")
    with pytest.raises(DataError, match="is an index of pictures, not of passages"):
        assemble(settings_of(config)).load()
    config.corpus, config.local.by = str(tmp_path / "out"), "dense"
    with pytest.raises(ConfigError, match="has no vectors to search by"):
        assemble(settings_of(config)).load()
