"""How failures of providers are told: their types, no key in any message, and whatever JSON comes back."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tools_server.backends.provider_asks import KEY, ask, backend
from tools_server.backends import upstream as upstream_module
from tools_server.backends.backend import QueryPicture
from tools_server.backends.providers import IMAGE, TEXT
from tools_server.backends.upstream import Sessions, seconds
from tools_server.failures import SearchFailure


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
