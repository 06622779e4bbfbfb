"""A server with web backends, asked over HTTP: sources, price, cache, budget, batches, token, and Search-R1's route."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ml_collections
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from benchmarks.stand_ins.upstreams import Upstream
from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.search_api import SearchReply
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import COLOURS, PAGES, bands, encode, scene, write_corpus
from tools_server.assembly import assemble
from tools_server.http_app import create_app
from tools_server.request_images import read_base64

TEXT = search_api.ROUTE_TEXT_SEARCH


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch):
    for name in ("SERPER_API_KEY", "BRAVE_API_KEY", "GOOGLE_VISION_API_KEY"):
        monkeypatch.setenv(name, "k")


def settings(tmp_path: Path, **upstreams: str) -> ml_collections.ConfigDict:
    """A config with backends at these addresses; text backends are asked in this order."""
    config = default_config()
    config.cache.path, config.cache.mode = str(tmp_path / "cache.sqlite"), "live"
    config.text.backends = tuple(name for name in upstreams if name != "google_vision")
    config.image.backends = ("google_vision",) if "google_vision" in upstreams else ()
    for name, url in upstreams.items():
        config.backends[name].update({"url": url, "calls_per_s": 1000.0, "attempt_timeout_s": 1.0})
    return config


async def serving(config: ml_collections.ConfigDict, talk: Callable[[TestClient], Awaitable[None]]) -> None:
    assembly = assemble(settings_of(config))
    app = create_app(assembly.load, assembly.limits, assembly.token, assembly.add_routes)
    async with TestClient(TestServer(app)) as client:
        await talk(client)


async def post(client: TestClient, route: str, body: Any, **options: Any) -> tuple[int, Any]:
    response = await client.post(route, json=body, **options)
    return response.status, await response.json()


def test_a_reply_says_its_sources_backend_price_and_whether_it_was_kept(tmp_path: Path):
    async def go() -> None:
        async with Upstream("serper") as upstream:

            async def talk(client: TestClient) -> None:
                first = SearchReply.from_json((await post(client, TEXT, {"query": "velmora"}))[1])
                second = SearchReply.from_json((await post(client, TEXT, {"query": "  velmora "}))[1])
                assert (first.backend, first.cost_usd, first.cached, first.status) == ("serper", 0.001, False, "ok")
                assert (first.results[0].title, first.results[0].url) == ("Velmora", "https://x.example/velmora")
                assert (second.cached, second.cost_usd, second.results) == (True, 0.0, first.results)
                assert len(upstream.requests) == 1
                ready = await (await client.get(search_api.ROUTE_READY)).json()
                assert (ready["budget"]["calls"], ready["budget"]["usd"]) == (1, 0.001)
                metrics = await (await client.get(search_api.ROUTE_METRICS)).text()
                assert 'tools_backend_calls_total{backend="serper",kind="text",outcome="ok"} 1.0' in metrics
                assert 'tools_cache_total{outcome="hits"} 1.0' in metrics

            await serving(settings(tmp_path, serper=upstream.url), talk)

    asyncio.run(go())


def test_a_recorded_run_plays_back_without_any_network(tmp_path: Path):
    queries = [f"query {i}" for i in range(5)]

    async def go() -> None:
        async with Upstream("serper") as upstream:
            config = settings(tmp_path, serper=upstream.url)
            config.cache.mode = "record"
            recorded: list[Any] = []

            async def record(client: TestClient) -> None:
                recorded.extend([(await post(client, TEXT, {"query": query}))[1]["results"] for query in queries])

            await serving(config, record)
        config.cache.mode = "replay"  # the upstream has stopped

        async def replay(client: TestClient) -> None:
            assert [(await post(client, TEXT, {"query": query}))[1]["results"] for query in queries] == recorded
            status, body = await post(client, TEXT, {"query": "another"})
            assert (status, body["code"]) == (404, "not_recorded")

        await serving(config, replay)

    asyncio.run(go())


def test_a_spent_budget_stops_hard_and_says_how_to_go_on(tmp_path: Path):
    async def go() -> None:
        async with Upstream("serper") as upstream:
            config = settings(tmp_path, serper=upstream.url)
            config.budget.update({"run": "grpo1", "max_calls": 3})

            async def talk(client: TestClient) -> None:
                replies = await asyncio.gather(*(post(client, TEXT, {"query": f"q{i}"}) for i in range(10)))
                assert sorted(status for status, _ in replies) == [200] * 3 + [402] * 7
                refused = next(body for status, body in replies if status == 402)
                assert refused["code"] == "out_of_budget"
                assert "run 'grpo1' is spent (3 calls" in refused["message"]
                assert len(upstream.requests) == 3

            await serving(config, talk)

    asyncio.run(go())


def test_the_second_backend_answers_for_the_first_and_the_corpus_for_both(tmp_path: Path):
    async def go() -> None:
        async with Upstream("serper", lambda n: (400, "Not enough credits")) as spent, Upstream("brave") as brave:

            async def talk(client: TestClient) -> None:
                assert (await post(client, TEXT, {"query": "velmora"}))[1]["backend"] == "brave"

            await serving(settings(tmp_path, serper=spent.url, brave=brave.url), talk)
            config = settings(tmp_path / "other", serper=spent.url)
            config.text.backends, config.corpus = ("serper", "local"), str(write_corpus(tmp_path / "corpus"))

            async def local(client: TestClient) -> None:
                reply = (await post(client, TEXT, {"query": "velmora capital"}))[1]
                assert (reply["backend"], reply["results"][0]["snippet"]) == ("local", "Capital: Ostrin")

            await serving(config, local)

    asyncio.run(go())


def test_equal_queries_of_many_episodes_are_paid_once(tmp_path: Path):
    async def go() -> None:
        async with Upstream("serper", lambda n: "slow") as upstream:

            async def talk(client: TestClient) -> None:
                replies = await asyncio.gather(*(post(client, TEXT, {"query": f"q{i % 3}"}) for i in range(60)))
                assert {status for status, _ in replies} == {200}
                assert dict(upstream.paid) == {"q0": 1, "q1": 1, "q2": 1}

            await serving(settings(tmp_path, serper=upstream.url), talk)

    asyncio.run(go())


def test_image_search_sends_the_crop_and_keeps_by_its_bytes(tmp_path: Path):
    image, boxes = scene("Flag of Velmora", "Flag of New Velmora")
    data = encode(image)

    async def go() -> None:
        async with Upstream("google_vision") as upstream:

            async def talk(client: TestClient) -> None:
                route = search_api.ROUTE_IMAGE_SEARCH
                asked = {"image_base64": data, "expression": "the flag on the left"}
                _, reply = await post(client, route, asked)
                assert (reply["backend"], reply["grounded"], reply["cost_usd"]) == ("google_vision", True, 0.0035)
                assert max(abs(a - b) for a, b in zip(reply["box"], boxes[0], strict=True)) <= 3
                sent = upstream.requests[0]["json"]["requests"][0]["image"]["content"]
                x0, y0, x1, y1 = reply["box"]
                with Image.open(io.BytesIO(read_base64(sent))) as crop:
                    assert crop.size == (x1 - x0, y1 - y0)
                assert (await post(client, route, asked))[1]["cached"] is True
                _, boxed = await post(client, route, {"image_base64": data, "box": [0, 0, 50, 4000]})
                assert boxed["box"] == [0, 0, 50, image.height]
                status, refused = await post(client, route, {"image_base64": data, "box": [900, 0, 950, 40]})
                assert (status, refused["code"]) == (400, "bad_request")
                assert "contains no pixel" in refused["message"]

            await serving(settings(tmp_path, google_vision=upstream.url), talk)

    asyncio.run(go())


def test_an_image_is_sent_once_and_named_afterwards(tmp_path: Path):
    config = default_config()
    config.corpus = str(write_corpus(tmp_path / "corpus"))
    data = read_base64(encode(bands(COLOURS["Flag of Harland"])))

    async def talk(client: TestClient) -> None:
        response = await client.post(search_api.ROUTE_IMAGES, data=data)
        name = (await response.json())["image_id"]
        assert name == hashlib.sha256(data).hexdigest()
        _, reply = await post(client, search_api.ROUTE_IMAGE_SEARCH, {"image_id": name, "top_k": 1})
        assert reply["results"][0]["title"] == "Flag of Harland"
        status, body = await post(client, search_api.ROUTE_IMAGE_SEARCH, {"image_id": "0" * 64})
        assert (status, body["code"]) == (404, "unknown_image")

    asyncio.run(serving(config, talk))


def test_batches_answer_each_request_for_itself(tmp_path: Path):
    config = default_config()
    config.corpus = str(write_corpus(tmp_path / "corpus"))

    async def talk(client: TestClient) -> None:
        requests = [{"query": "velmora capital"}, {"query": " "}, {"query": "harn"}, 3]
        status, body = await post(client, TEXT + search_api.BATCH, {"requests": requests})
        assert status == 200
        assert body["replies"][0]["results"][0]["snippet"] == "Capital: Ostrin"
        assert [reply.get("code") for reply in body["replies"]] == [None, "bad_request", None, "bad_request"]
        status, body = await post(client, TEXT + search_api.BATCH, {"requests": []})
        assert (status, "1 to 64" in body["message"]) == (400, True)

    asyncio.run(serving(config, talk))


def test_clients_of_search_r1_are_served(tmp_path: Path):
    config = default_config()
    config.corpus = str(write_corpus(tmp_path / "corpus"))

    async def talk(client: TestClient) -> None:
        asked = {"queries": ["velmora capital", "harn"], "topk": 2, "return_scores": True}
        _, body = await post(client, search_api.ROUTE_RETRIEVE, asked)
        first = body["result"][0][0]
        assert first["document"]["contents"] == f'"Velmora"\n{PAGES[0].text}'
        assert first["score"] > body["result"][0][1]["score"]
        _, plain = await post(client, search_api.ROUTE_RETRIEVE, {"query": "velmora capital"})
        assert plain["result"][0][0] == first["document"]
        status, body = await post(client, search_api.ROUTE_RETRIEVE, {"queries": [3]})
        assert (status, body["message"]) == (400, "'queries' must be a list of strings")

    asyncio.run(serving(config, talk))


def test_with_a_token_only_those_who_know_it_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOOLS_TOKEN", "s3cret")
    config = default_config()
    config.corpus, config.token_env = str(write_corpus(tmp_path / "corpus")), "TOOLS_TOKEN"

    async def talk(client: TestClient) -> None:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Bearer s3cret"}, 200),
        ):
            assert (await post(client, TEXT, {"query": "harn"}, headers=headers))[0] == status
        assert (await client.get(search_api.ROUTE_HEALTH)).status == 200
        assert (await client.get(search_api.ROUTE_METRICS)).status == 401

    asyncio.run(serving(config, talk))


def test_a_caller_in_a_hurry_is_told_in_time(tmp_path: Path):
    async def go() -> None:
        async with Upstream("serper", lambda n: "hang") as upstream:

            async def talk(client: TestClient) -> None:
                status, body = await post(client, TEXT, {"query": "q", "deadline_s": 0.2})
                assert (status, body["code"]) == (504, "upstream_timeout")

            config = settings(tmp_path, serper=upstream.url)
            config.limits.deadline_s = 3.0
            await serving(config, talk)

    asyncio.run(go())


def summarising(tmp_path: Path, model_url: str, upstream_url: str) -> ml_collections.ConfigDict:
    config = settings(tmp_path, serper=upstream_url)
    config.summariser.update({"kind": "model", "url": model_url, "model": "m", "max_chars": 300, "deadline_s": 3.0})
    return config


def test_a_model_condenses_with_the_question_in_view_and_extraction_steps_in(tmp_path: Path):
    asked: list[str] = []
    replies: list[web.Response] = []

    async def chat(request: web.Request) -> web.Response:
        asked.append((await request.json())["messages"][0]["content"])
        return replies.pop(0)

    async def go() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        async with Upstream("serper") as upstream, TestServer(app) as model:

            async def talk(client: TestClient) -> None:
                said = {"choices": [{"message": {"content": "<think>hm</think>Ostrin is the capital. " + "x " * 400}}]}
                replies.append(web.json_response(said))
                _, body = await post(client, TEXT, {"query": "velmora capital", "question": "Where does she live?"})
                reply = SearchReply.from_json(body)
                assert reply.summary is not None
                assert (reply.summarised_by, reply.summary[:23], len(reply.summary) <= 300) == (
                    "model",
                    "Ostrin is the capital. ",
                    True,
                )
                assert reply.results[0].title == "Velmora"
                assert "Where does she live?" in asked[0] and "Capital: Ostrin" in asked[0]
                replies.append(web.Response(status=400, text="no such model"))
                _, body = await post(client, TEXT, {"query": "velmora capital", "question": "Another?"})
                assert (body["summarised_by"], body["summary"]) == ("extract", "Velmora: Capital: Ostrin")
                assert "sentences of the results" in body["note"]

            await serving(summarising(tmp_path, str(model.make_url("/v1")), upstream.url), talk)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": {"backends": ("gogle",)}}, "text.backends has 'gogle': .*use local, serper"),
        ({"text": {"backends": ("google_vision",)}}, "text.backends has 'google_vision': .*use local, serper"),
        (
            {"corpus": "x", "text": {"backends": ("exa",)}},
            "backends.exa.key_env names the environment variable EXA_API_KEY, which is not set",
        ),
        (
            {"image": {"backends": ("serper_lens",)}},
            "publisher.kind is 'none', but the backend 'serper_lens' fetches images from a public address",
        ),
        ({}, "corpus is empty, but the backend 'local' needs a corpus: give --corpus DIR"),
        ({"corpus": "x", "summariser": {"kind": "magic"}}, "summariser.kind is 'magic': use none, extract or model"),
        ({"corpus": "x", "summariser": {"kind": "model"}}, "summariser.url is empty"),
        ({"corpus": "x", "token_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE, which is not set"),
    ],
)
def test_a_wrong_config_is_said_before_the_server_starts(changes: dict[str, Any], words: str):
    config = default_config()
    for key, value in changes.items():
        config[key].update(value) if isinstance(value, dict) else config.update({key: value})
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        assemble(settings_of(config))


def test_the_openapi_document_names_every_route(tmp_path: Path):
    config = default_config()
    config.corpus = str(write_corpus(tmp_path / "corpus"))

    async def talk(client: TestClient) -> None:
        document = await (await client.get(search_api.ROUTE_OPENAPI)).json()
        assert {TEXT, TEXT + "/batch", "/v1/image_search", "/v1/ground", "/v1/images", "/retrieve"} <= set(
            document["paths"]
        )
        assert json.dumps(document).count("SearchReply") > 3

    asyncio.run(serving(config, talk))
