"""Every provider over HTTP: the request is as documented, the documented reply is read, failures are typed."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from benchmarks.stand_ins.upstreams import REPLIES
from mmsearch_jax.core.search_api import SearchResult
from tests.tools_server.backends.provider_asks import KEY, ask
from tools_server.backends.backend import QueryPicture
from tools_server.backends.providers import IMAGE, TEXT
from tools_server.failures import SearchFailure

RESULTS = [
    ("Velmora", "Capital: Ostrin", "https://x.example/velmora"),
    ("Harn", "A city by the sea & more", "https://x.example/harn"),
]


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
