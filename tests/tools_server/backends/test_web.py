"""Every provider over HTTP: the request is as documented, the documented reply is read, failures are typed."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.stand_ins.upstreams import REPLIES, Upstream
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


NOTHING_FOUND = {
    "serper": {"searchParameters": {"q": "x"}, "organic": []},
    "serpapi": {
        "search_metadata": {"status": "Success"},
        "search_information": {"organic_results_state": "Fully empty"},
        "error": "Google hasn't returned any results for this query.",
    },
    "brave": {"type": "search", "query": {"original": "x"}, "mixed": {"main": []}},
    "tavily": {"query": "x", "results": []},
    "exa": {"requestId": "1", "results": []},
    "searxng": {"query": "x", "results": [], "answers": [], "infoboxes": [], "unresponsive_engines": []},
    "retriever": {"result": [[]]},
    "opensearch": {"timed_out": False, "_shards": {"failed": 0}, "hits": {"total": {"value": 0}, "hits": []}},
    "serper_lens": {"organic": []},
    "serpapi_lens": {"search_metadata": {"status": "Success"}, "error": "Google Lens hasn't returned any results."},
    "google_vision": {"responses": [{}]},
}


def answers(name: str, body: Any) -> Any:
    """What the backend makes of a reply with status 200."""
    query = "q" if name in TEXT else QueryPicture(Image.new("RGB", (30, 20)))
    return ask(name, query, behave=lambda n: (200, json.dumps(body)))[0]


@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
def test_only_the_providers_own_empty_answer_says_that_nothing_was_found(name: str):
    assert answers(name, NOTHING_FOUND[name]) == ()
    for body in ({}, {"message": "Internal Server Error"}, {"error": "backend unavailable"}, {"status": "failed"}, []):
        failure = answers(name, body)
        assert isinstance(failure, SearchFailure), body
        assert (failure.code, failure.passing) == ("upstream_error", True)


@pytest.mark.parametrize(
    ("name", "body", "code", "passing"),
    [
        ("searxng", {"results": [], "unresponsive_engines": [["google", "CAPTCHA"]]}, "upstream_error", True),
        (
            "searxng",
            {"results": [], "answers": [""], "unresponsive_engines": [["a", "timeout"]]},
            "upstream_error",
            True,
        ),
        ("serper", {"message": "Rate limit exceeded"}, "rate_limited", True),
        ("serpapi", {"search_metadata": {"status": "Processing"}}, "upstream_error", True),
        ("serpapi", {"search_metadata": {"status": "Error"}, "organic_results": []}, "upstream_error", True),
        ("serpapi", {"error": "Your account has run out of searches."}, "out_of_budget", False),
        ("brave", {"type": "ErrorResponse", "error": {"detail": "Invalid API key"}}, "not_authorised", False),
        ("brave", {"type": "search", "query": {}, "web": {"results": None}}, "upstream_error", True),
        ("tavily", {"detail": {"error": "Too many requests"}}, "rate_limited", True),
        ("exa", {"error": "You have exceeded your credits limit"}, "out_of_budget", False),
        ("retriever", {"result": []}, "upstream_error", True),
        ("retriever", {"result": [None]}, "upstream_error", True),
        ("opensearch", {"timed_out": True, "hits": {"hits": []}}, "upstream_error", True),
        ("opensearch", {"_shards": {"failed": 2}, "hits": {"hits": []}}, "upstream_error", True),
        ("serper_lens", {"error": "image could not be fetched"}, "upstream_error", True),
        ("serpapi_lens", {"error": "Invalid API key"}, "not_authorised", False),
        ("google_vision", {"responses": []}, "upstream_error", True),
        ("google_vision", {"responses": [{"error": {"code": 8, "message": "slow"}}]}, "rate_limited", True),
        ("google_vision", {"responses": [{"error": {"code": 16}}]}, "not_authorised", False),
        ("google_vision", {"responses": [{"error": {"code": 14, "message": "down"}}]}, "upstream_error", True),
    ],
)
def test_a_failure_with_status_200_is_typed(name: str, body: Any, code: str, passing: bool):
    failure = answers(name, body)
    assert isinstance(failure, SearchFailure), failure
    assert (failure.code, failure.passing) == (code, passing)
    assert name in failure.message


@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
@pytest.mark.parametrize(
    ("said", "code", "passing"),
    [
        ({"error": "the search timed out"}, "upstream_error", True),
        ({"message": "Something went wrong", "statusCode": 500}, "upstream_error", True),
        ({"detail": {"error": "This request exceeds your plan's quota"}}, "out_of_budget", False),
        ({"errors": ["Rate limit exceeded"]}, "rate_limited", True),
        ({"statusCode": 503}, "upstream_error", True),
        ({"success": False}, "upstream_error", True),
    ],
)
def test_an_empty_list_beside_an_error_is_that_error(name: str, said: Any, code: str, passing: bool):
    failure = answers(name, {**NOTHING_FOUND[name], **said})
    assert isinstance(failure, SearchFailure), failure
    assert (failure.code, failure.passing) == (code, passing)


def test_an_error_beside_results_hides_nothing():
    body = {"results": [{"title": "a", "content": "b", "url": "c"}], "error": "one engine timed out"}
    assert answers("tavily", body) == (SearchResult("a", "b", "c"),)


def test_a_search_of_which_no_shard_answered_is_a_failure():
    body = {"timed_out": False, "_shards": {"total": 5, "successful": 0, "failed": 0}, "hits": {"hits": []}}
    assert isinstance(answers("opensearch", body), SearchFailure)


def test_a_knowledge_graph_is_an_answer_also_without_pages():
    known = {"title": "Velmora", "description": "A land.", "attributes": {"Area": "9 km"}}
    expected = (SearchResult("Velmora", "A land.; Area: 9 km"),)
    assert answers("serper", {"knowledgeGraph": known, "organic": []}) == expected
    assert answers("serpapi", {"search_metadata": {"status": "Success"}, "knowledge_graph": known}) == expected


def test_engines_without_an_answer_do_not_hide_what_others_found():
    body = {"results": [{"title": "a", "content": "b", "url": "c"}], "unresponsive_engines": [["google", "CAPTCHA"]]}
    assert answers("searxng", body) == (SearchResult("a", "b", "c"),)


def test_answers_and_infoboxes_of_searxng_come_first():
    body = {
        "answers": ["Ostrin", {"answer": "42", "url": "https://a.example"}, {"template": "odd"}],
        "infoboxes": [
            {
                "infobox": "Velmora",
                "content": "A land.",
                "attributes": [{"label": "Area", "value": "9 km"}, {"label": "Flag", "image": {}}, None],
                "urls": [{"title": "W", "url": "https://w.example"}],
            }
        ],
        "results": [{"title": "a", "content": "b", "url": "c"}],
    }
    assert answers("searxng", body) == (
        SearchResult("Answer", "Ostrin"),
        SearchResult("Answer", "42", "https://a.example"),
        SearchResult("Velmora", "A land.; Area: 9 km", "https://w.example"),
        SearchResult("a", "b", "c"),
    )
    assert answers("searxng", {"answers": ["Ostrin"], "results": [], "unresponsive_engines": [["a", "b"]]})


@pytest.mark.parametrize("name", [*TEXT, "serper_lens", "serpapi_lens"])
@pytest.mark.parametrize("bad", [None, 7, "row", [], {"title": {}, "document": 3, "_source": None}])
def test_one_malformed_row_is_skipped_and_only_malformed_rows_are_a_failure(name: str, bad: Any):
    body = json.loads(json.dumps(REPLIES[name]))
    rows = next(rows for rows in _lists(body) if rows and isinstance(rows[0], dict))
    good = len(rows)
    rows.insert(0, bad)
    assert len(answers(name, body)) == good
    rows[:] = [bad]
    assert isinstance(answers(name, body), SearchFailure)


def _lists(value: Any) -> Iterator[list[Any]]:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, list):
            yield item
        yield from _lists(item)


@pytest.mark.parametrize(
    ("name", "chars", "words"), [("brave", 400, 50), ("tavily", 400, 10**6), ("serper", 2000, 10**6)]
)
def test_a_query_that_the_provider_would_refuse_is_cut_at_a_word(name: str, chars: int, words: int):
    query = "word " * 500
    sent = ASKED[name](ask(name, query)[1].requests[0])[3]
    assert len(sent) <= chars
    assert len(sent.split()) == min(words, (chars + 1) // 5)
    assert len(ASKED[name](ask(name, "長" * 3000)[1].requests[0])[3]) == chars


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
