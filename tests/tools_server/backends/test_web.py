"""Every provider over HTTP: the request is as documented, the documented reply is read, failures are typed."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.stand_ins.upstreams import Upstream
from mmsearch_jax.core.search_api import SearchResult
from tools_server.backends import upstream as upstream_module
from tools_server.backends.backend import QueryPicture
from tools_server.backends.providers import IMAGE, TEXT
from tools_server.backends.upstream import Sessions, seconds
from tools_server.backends.web import WebImage, WebText
from tools_server.failures import SearchFailure
from tools_server.settings.sources import WebBackendSettings

KEY = "k3y-that-nobody-may-read"
RESULTS = [
    ("Velmora", "Capital: Ostrin", "https://x.example/velmora"),
    ("Harn", "A city by the sea & more", "https://x.example/harn"),
]


class Publisher:
    async def publish(self, data: bytes) -> str:
        assert Image.open(io.BytesIO(data)).size == (30, 20)
        return "https://images.example/one.jpg"


def backend(name: str, url: str, sessions: Sessions, publisher: Any = None) -> Any:
    settings = WebBackendSettings(url=url, key_env="TEST_KEY", cost_usd=0.001)
    if name in TEXT:
        return WebText(name, sessions, settings)
    return WebImage(name, sessions, settings, publisher or Publisher())


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_KEY", KEY)


def ask(name: str, query: Any = "capital of Velmora", top_k: int = 5, **behaviour: Any) -> tuple[Any, Upstream]:
    """The backend's results (or its failure) and the upstream that was asked."""

    async def go() -> tuple[Any, Upstream]:
        sessions = Sessions()
        try:
            async with Upstream(name, **behaviour) as upstream:
                try:
                    return await backend(name, upstream.url, sessions).search(query, top_k), upstream
                except SearchFailure as failure:
                    return failure, upstream
        finally:
            await sessions.close()

    return asyncio.run(go())


ASKED = {
    "serper": lambda r: (r["method"], r["path"], r["headers"]["X-API-KEY"], r["json"]["q"]),
    "serpapi": lambda r: (r["method"], r["path"], r["params"]["api_key"], r["params"]["q"]),
    "brave": lambda r: (r["method"], r["path"], r["headers"]["X-Subscription-Token"], r["params"]["q"]),
    "tavily": lambda r: (
        r["method"],
        r["path"],
        r["headers"]["Authorization"].removeprefix("Bearer "),
        r["json"]["query"],
    ),
    "exa": lambda r: (r["method"], r["path"], r["headers"]["x-api-key"], r["json"]["query"]),
    "searxng": lambda r: (r["method"], r["path"], KEY, r["params"]["q"]),
    "retriever": lambda r: (r["method"], r["path"], KEY, r["json"]["queries"][0]),
    "opensearch": lambda r: (
        r["method"],
        r["path"],
        r["headers"]["Authorization"].removeprefix("ApiKey "),
        r["json"]["query"]["multi_match"]["query"],
    ),
}
ROUTES = {
    "serper": ("POST", "/search"),
    "serpapi": ("GET", "/search.json"),
    "brave": ("GET", "/res/v1/web/search"),
    "tavily": ("POST", "/search"),
    "exa": ("POST", "/search"),
    "searxng": ("GET", "/search"),
    "retriever": ("POST", "/retrieve"),
    "opensearch": ("POST", "/_search"),
}


@pytest.mark.parametrize("name", TEXT)
def test_a_text_provider_is_asked_and_read_as_documented(name: str):
    results, upstream = ask(name)
    assert ASKED[name](upstream.requests[0]) == (*ROUTES[name], KEY, "capital of Velmora")
    assert [(r.title, r.snippet, r.url) for r in results] == RESULTS


def test_fewer_results_than_found_can_be_asked_for():
    assert len(ask("brave", top_k=1)[0]) == 1


@pytest.mark.parametrize("name", IMAGE)
def test_an_image_provider_is_asked_and_read_as_documented(name: str):
    picture = QueryPicture(Image.new("RGB", (30, 20), (200, 30, 40)))
    results, upstream = ask(name, picture)
    request = upstream.requests[0]
    if IMAGE[name].wants == "url":
        sent = request["json"]["url"] if request["json"] else request["params"]["url"]
        assert sent == "https://images.example/one.jpg"
        assert [(r.title, r.url) for r in results] == [(title, url) for title, _, url in RESULTS]
    else:
        content = base64.b64decode(request["json"]["requests"][0]["image"]["content"])
        assert Image.open(io.BytesIO(content)).size == (30, 20)
        assert (request["headers"]["X-Goog-Api-Key"], KEY in request["path"]) == (KEY, False)
        assert results[0].snippet == "velmora flag, Velmora"
        assert [(r.title, r.url) for r in results[1:]] == [(title, url) for title, _, url in RESULTS]


def test_an_answer_box_comes_first():
    body = {
        "answerBox": {"title": "Velmora", "answer": "Ostrin"},
        "organic": [{"title": "a", "snippet": "b", "link": "c"}],
    }
    results, _ = ask("serper", behave=lambda n: (200, json.dumps(body)))
    assert results == (SearchResult("Velmora", "Ostrin"), SearchResult("a", "b", "c"))


@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
def test_no_hits_are_an_answer(name: str):
    empty = {"retriever": {"result": [[]]}, "google_vision": {"responses": [{}]}}.get(name, {})
    picture = QueryPicture(Image.new("RGB", (30, 20)))
    results, _ = ask(name, "q" if name in TEXT else picture, behave=lambda n: (200, json.dumps(empty)))
    assert results == ()


@pytest.mark.parametrize(
    ("name", "how", "code", "passing"),
    [
        ("serper", (400, '{"message": "Not enough credits"}'), "out_of_budget", False),
        ("serper", (400, "bad query"), "upstream_error", False),
        ("serper", (401, "who are you"), "not_authorised", False),
        ("serper", (403, '{"message": "Unauthorized."}'), "not_authorised", False),
        ("serpapi", (429, '{"error": "Your account has run out of searches."}'), "out_of_budget", False),
        ("serpapi", (429, '{"error": "Too many requests"}'), "rate_limited", True),
        ("serpapi", (503, "busy"), "upstream_error", True),
        ("tavily", (432, "plan limit"), "out_of_budget", False),
        ("exa", (402, "credits"), "out_of_budget", False),
        ("searxng", (403, "json is off"), "not_authorised", False),
        ("brave", (504, ""), "upstream_timeout", True),
        ("brave", (302, ""), "upstream_error", False),
        ("brave", "429", "rate_limited", True),
        ("brave", "error", "upstream_error", True),
        ("brave", "truncate", "upstream_error", True),
        ("brave", "lie", "upstream_error", True),
    ],
)
def test_failures_are_typed(name: str, how: Any, code: str, passing: bool):
    failure, _ = ask(name, behave=lambda n: how)
    assert isinstance(failure, SearchFailure)
    assert (failure.code, failure.passing) == (code, passing)
    assert name in failure.message


def test_nobody_at_the_address_is_a_failure_that_may_pass():
    async def go() -> None:
        sessions = Sessions()
        with pytest.raises(SearchFailure, match="brave: .*no answer") as caught:
            await backend("brave", "http://127.0.0.1:9", sessions).search("q", 3)
        assert caught.value.passing
        await sessions.close()

    asyncio.run(go())


def test_a_reply_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upstream_module, "MAX_REPLY_BYTES", 100_000)
    failure, _ = ask("brave", behave=lambda n: (200, "x" * 300_000))
    assert "larger than 100,000 bytes" in failure.message


def test_retry_after_is_seconds_or_a_date():
    assert seconds("7") == 7.0
    assert seconds("soon") == seconds("") == seconds("-3") == 0.0
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert seconds("Fri, 31 Dec 2999 23:59:59 GMT") == 3600.0
    assert ask("brave", behave=lambda n: "429", retry_after="9")[0].retry_after_s == 9.0


@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
@pytest.mark.parametrize(
    "how", [(500, f"key {KEY} failed"), (401, KEY), (429, KEY), (200, f"not json {KEY}"), (200, f'["{KEY}"]')]
)
def test_no_key_is_in_any_message_or_log(name: str, how: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    query = "q" if name in TEXT else QueryPicture(Image.new("RGB", (30, 20)))
    failure, _ = ask(name, query, behave=lambda n: how)
    assert isinstance(failure, SearchFailure)
    assert KEY not in failure.message
    # Neither the tools server nor the test's upstream logs the key.
    assert KEY not in caplog.text


def test_no_key_is_in_the_message_when_the_connection_fails():
    async def go() -> str:
        sessions = Sessions()
        with pytest.raises(SearchFailure) as caught:
            await backend("serpapi", "http://127.0.0.1:9", sessions).search("q", 3)
        await sessions.close()
        return caught.value.message

    assert KEY not in asyncio.run(go())


FIELDS = st.sampled_from(
    [
        "organic",
        "organic_results",
        "web",
        "results",
        "result",
        "hits",
        "_source",
        "title",
        "snippet",
        "link",
        "responses",
        "webDetection",
        "document",
        "contents",
        "score",
        "answerBox",
        "visual_matches",
        "error",
    ]
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from([*TEXT, *IMAGE]), reply=ANY_JSON)
def test_whatever_json_comes_back_is_read_or_refused(name: str, reply: Any):
    async def go() -> Any:
        made = backend(name, "http://x", Sessions())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TEST_KEY", KEY)
            patch.setattr("tools_server.backends.web.call", answered)
            return await made.search("q" if name in TEXT else QueryPicture(Image.new("RGB", (30, 20))), 5)

    async def answered(*_: object) -> Any:
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", KEY)
        try:
            results = asyncio.run(go())
        except SearchFailure as failure:
            assert failure.code == "upstream_error"
            return
    assert all(isinstance(part, str) for r in results for part in (r.title, r.snippet, r.url))
