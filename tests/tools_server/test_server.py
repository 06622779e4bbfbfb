"""The server as a process on a free loopback port, asked over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import ToolUnavailable
from mmsearch_jax.core.search_api import ErrorReply, SearchReply
from mmsearch_jax.jobs.search_server import start_server
from tests.tools_server.small_corpus import COLOURS, bands, encode, scene, write_corpus
from tools_server.metrics import Metrics


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("world") / "corpus")


@pytest.fixture(scope="module")
def url(corpus: Path) -> Iterator[str]:
    with start_server(corpus) as server:
        yield server.url


def ask(url: str, route: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Any]:
    async def go() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session:
            method = "GET" if body is None and raw is None else "POST"
            async with session.request(method, url + route, json=body, data=raw) as response:
                if response.content_type == "application/json":
                    return response.status, await response.json()
                return response.status, await response.text()

    return asyncio.run(go())


def test_text_search_answers_in_the_schema(url: str):
    status, body = ask(url, search_api.ROUTE_TEXT_SEARCH, {"query": "Velmora capital", "top_k": 2})
    reply = SearchReply.from_json(body)
    assert status == 200
    assert (reply.tool, reply.results[0].title, reply.results[0].snippet) == (
        "text_search",
        "Velmora",
        "Capital: Ostrin",
    )
    assert reply.results[0].url == "https://x.example/velmora"
    assert len(reply.results) == 2
    assert reply.elapsed_ms > 0


def test_no_hit_is_an_answer_not_an_error(url: str):
    status, body = ask(url, search_api.ROUTE_TEXT_SEARCH, {"query": "qqqq", "top_k": 2})
    assert (status, body["results"]) == (200, [])


def test_the_whole_image_is_searched_without_an_expression(url: str):
    request = {"image_base64": encode(bands(COLOURS["Flag of Harland"])), "top_k": 1}
    status, body = ask(url, search_api.ROUTE_IMAGE_SEARCH, request)
    reply = SearchReply.from_json(body)
    assert status == 200
    assert [result.title for result in reply.results] == ["Flag of Harland"]
    assert (reply.box, reply.grounded, reply.note) == (None, False, None)
    assert reply.results[0].thumbnail_base64


@pytest.mark.parametrize(("side", "title"), [("left", "Flag of Velmora"), ("right", "Flag of New Velmora")])
def test_an_expression_searches_the_crop_it_means(url: str, side: str, title: str):
    image, boxes = scene("Flag of Velmora", "Flag of New Velmora")
    request = {"image_base64": encode(image), "expression": f"the flag on the {side}", "top_k": 1}
    _, body = ask(url, search_api.ROUTE_IMAGE_SEARCH, request)
    reply = SearchReply.from_json(body)
    assert reply.grounded
    assert reply.box is not None
    assert max(abs(a - b) for a, b in zip(reply.box, boxes[side == "right"], strict=True)) <= 3
    assert reply.results[0].title == title


def test_an_expression_that_is_not_found_falls_back_to_the_whole_image_and_says_so(url: str):
    request = {"image_base64": encode(Image.new("RGB", (200, 150), (90, 90, 90))), "expression": "the flag on the left"}
    _, body = ask(url, search_api.ROUTE_IMAGE_SEARCH, request)
    assert (body["grounded"], body["box"]) == (False, None)
    assert "whole image" in body["note"]
    assert body["results"]


def test_grounding_alone_gives_a_box(url: str):
    image, _ = scene("Flag of Velmora", "Flag of New Velmora")
    request = {"image_base64": encode(image, "PNG"), "expression": "the flag on the left"}
    status, body = ask(url, search_api.ROUTE_GROUND, request)
    assert (status, body["grounded"], body["results"]) == (200, True, [])


TINY = encode(Image.new("RGB", (4, 4)), "PNG")
TORN = encode(bands(COLOURS["Flag of Harland"]), "PNG")[:400]


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        (search_api.ROUTE_TEXT_SEARCH, {}, "'query' is missing"),
        (search_api.ROUTE_TEXT_SEARCH, {"query": 3}, "expected str"),
        (search_api.ROUTE_TEXT_SEARCH, {"query": " "}, "query is empty"),
        (search_api.ROUTE_TEXT_SEARCH, {"query": "a" * 5000}, "at most 2000"),
        (search_api.ROUTE_TEXT_SEARCH, {"query": "a", "top_k": 0}, "top_k is 0"),
        (search_api.ROUTE_TEXT_SEARCH, [1], "expected a JSON object"),
        (search_api.ROUTE_IMAGE_SEARCH, {"image_base64": "!!"}, "not base64"),
        (search_api.ROUTE_IMAGE_SEARCH, {"image_base64": ""}, "is empty"),
        (search_api.ROUTE_IMAGE_SEARCH, {"image_base64": "aGVsbG8="}, "the image is"),
        (search_api.ROUTE_IMAGE_SEARCH, {"image_base64": TORN}, "the image is"),
        (search_api.ROUTE_IMAGE_SEARCH, {"image_base64": TINY}, "at least 8"),
        (search_api.ROUTE_GROUND, {"image_base64": TINY}, "expression is empty"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(url: str, route: str, body: Any, words: str):
    status, answer = ask(url, route, body)
    error = ErrorReply.from_json(answer)
    assert (status, error.code) == (400, "bad_request")
    assert words in error.message


def test_bodies_that_are_not_json_or_too_large_are_refused(url: str):
    status, answer = ask(url, search_api.ROUTE_TEXT_SEARCH, raw=b"\xff{")
    assert (status, answer["code"]) == (400, "bad_request")
    status, answer = ask(url, search_api.ROUTE_TEXT_SEARCH, raw=b" " * (17 * 2**20))
    assert (status, answer["code"]) == (413, "bad_request")


def test_images_of_too_many_pixels_are_refused(url: str):
    huge = encode(Image.new("1", (8000, 8000)), "PNG")
    status, answer = ask(url, search_api.ROUTE_IMAGE_SEARCH, {"image_base64": huge})
    assert (status, answer["code"]) == (400, "bad_request")
    assert "8000 x 8000" in answer["message"]


def test_unknown_routes_and_methods_are_typed_errors(url: str):
    assert ask(url, "/nowhere")[1]["code"] == "bad_request"
    assert ask(url, search_api.ROUTE_TEXT_SEARCH)[0] == 405


def test_health_readiness_and_metrics(url: str):
    assert ask(url, search_api.ROUTE_HEALTH) == (200, {"status": "ok"})
    assert ask(url, search_api.ROUTE_READY)[0] == 200
    ask(url, search_api.ROUTE_TEXT_SEARCH, {"query": "velmora"})
    text = ask(url, search_api.ROUTE_METRICS)[1]
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    answered = samples["tools_requests_total", (("route", search_api.ROUTE_TEXT_SEARCH), ("status", "200"))]
    assert answered >= 1
    timed = samples["tools_request_ms_count", (("route", search_api.ROUTE_TEXT_SEARCH),)]
    assert timed >= answered
    # The request for the metrics is itself in flight.
    assert samples["tools_requests_in_flight", ()] == 1
    assert ("tools_cache_total", (("outcome", "misses"),)) in samples


def test_servers_in_one_process_count_for_themselves():
    first, second = Metrics(), Metrics()
    parts = SimpleNamespace(
        cache=SimpleNamespace(hits=0, misses=0, shared=0, read_errors=0, write_errors=0, doubtful=0),
        text=SimpleNamespace(backends=()),
        image=SimpleNamespace(backends=()),
        reader=None,
    )
    first.record("/v1/ground", 200, 7.0)
    assert b'tools_request_ms_bucket{le="10.0",route="/v1/ground"} 1.0' in first.render(parts, None)
    assert b"/v1/ground" not in second.render(parts, {"calls": 3, "usd": 0.25})
    assert b"tools_spent_usd 0.25" in second.render(parts, {"calls": 3, "usd": 0.25})


def test_many_requests_at_once_are_all_answered(url: str):
    image = encode(scene("Flag of Velmora", "Flag of New Velmora")[0])

    async def go() -> list[int]:
        async with aiohttp.ClientSession() as session:

            async def one(i: int) -> int:
                image_body = {"image_base64": image, "expression": "the flag on the left"}
                route, body = (
                    (search_api.ROUTE_TEXT_SEARCH, {"query": "velmora"})
                    if i % 2
                    else (search_api.ROUTE_IMAGE_SEARCH, image_body)
                )
                async with session.post(url + route, json=body) as response:
                    return response.status

            return await asyncio.gather(*(one(i) for i in range(40)))

    assert set(asyncio.run(go())) == {200}


def test_a_port_in_use_is_one_line_and_code_2(corpus: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = _run("--corpus", str(corpus), "--port", str(port))
        with pytest.raises(ToolUnavailable, match=f"port {port} .*is in use"), start_server(corpus, port=port):
            pass
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.strip() == (
        f"error: port {port} on 127.0.0.1 is in use: choose another with --port, or 0 for a free one"
    )


def test_a_missing_corpus_is_one_line_and_code_2(tmp_path: Path):
    result = _run("--corpus", str(tmp_path / "nowhere"))
    assert result.returncode == 2
    assert result.stderr.startswith("error: no corpus at")
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_process_ends_with_the_block(corpus: Path):
    with start_server(corpus) as server:
        os.kill(server.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_the_server_needs_no_accelerator_library():
    code = "import tools_server.run_server, sys; print([m for m in ('jax', 'torch', 'flax') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
