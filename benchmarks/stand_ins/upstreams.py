"""A web search provider on a loopback port: it answers in each provider's documented form, and fails on command."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

PAGES = (
    ("Velmora", "Capital: Ostrin", "https://x.example/velmora"),
    ("Harn", "A city <b>by</b> the sea &amp; more", "https://x.example/harn"),
)


def _rows(title: str = "title", snippet: str = "snippet", url: str = "link") -> list[dict[str, str]]:
    return [{title: t, snippet: s, url: u} for t, s, u in PAGES]


_DOCUMENTS = [{"id": t, "contents": f'"{t}"\n{s}', "url": u} for t, s, u in PAGES]
_SOURCES = _rows("title", "text", "url")
REPLIES: dict[str, Any] = {
    "serper": {"searchParameters": {"q": "x"}, "organic": _rows(), "credits": 1},
    "serpapi": {"search_metadata": {"status": "Success"}, "organic_results": _rows()},
    "brave": {"type": "search", "web": {"results": _rows(snippet="description", url="url")}},
    "tavily": {"query": "x", "results": _rows(snippet="content", url="url"), "response_time": 1.2},
    "exa": {"results": [{"title": t, "highlights": [s], "url": u, "score": 0.3} for t, s, u in PAGES]},
    "searxng": {"query": "x", "results": _rows(snippet="content", url="url"), "unresponsive_engines": []},
    "retriever": {"result": [[{"document": document, "score": 0.5} for document in _DOCUMENTS]]},
    "opensearch": {"hits": {"total": {"value": 2}, "hits": [{"_score": 1.5, "_source": row} for row in _SOURCES]}},
    "serper_lens": {"organic": _rows(snippet="source")},
    "serpapi_lens": {"visual_matches": _rows(snippet="source")},
    "google_vision": {
        "responses": [
            {
                "webDetection": {
                    "bestGuessLabels": [{"label": "velmora flag"}],
                    "webEntities": [{"description": "Velmora", "score": 1.1}],
                    "pagesWithMatchingImages": [{"url": u, "pageTitle": t} for t, _, u in PAGES],
                }
            }
        ]
    },
}
"""What each provider says to any query, in the form that its documentation shows."""


class Upstream:
    """Answers like `provider`, however it is asked; `async with` starts and stops it.

    Args:
      behave: how call number n (from 0) ends: "ok", "error" (500), "hang", "429", "truncate", "lie", "empty", "slow", or a
        status and a body.
      slow_s: how long a "slow" call takes.
    """

    def __init__(
        self, provider: str, behave: Callable[[int], Any] = lambda n: "ok", slow_s: float = 0.2, retry_after: str = "0"
    ):
        self._reply, self._behave, self._slow_s, self._retry_after = REPLIES[provider], behave, slow_s, retry_after
        self.requests: list[dict[str, Any]] = []
        self.paid: collections.Counter[str] = collections.Counter()
        self.in_flight = self.peak = 0
        self.url = ""

    async def __aenter__(self) -> Upstream:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        number = len(self.requests)
        self.requests.append(
            {
                "method": request.method,
                "path": request.path,
                "headers": dict(request.headers),
                "params": dict(request.query),
                "json": body,
            }
        )
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._respond(self._behave(number), self._query(request, body))
        finally:
            self.in_flight -= 1

    async def _respond(self, how: Any, query: str) -> web.StreamResponse:
        if isinstance(how, tuple):
            return web.Response(status=how[0], text=how[1])
        if how == "hang":
            await asyncio.sleep(3600)
        if how == "slow":
            await asyncio.sleep(self._slow_s)
        if how == "error":
            return web.Response(status=500, text="something broke")
        if how == "429":
            return web.Response(status=429, text="slow down", headers={"Retry-After": self._retry_after})
        text = json.dumps(self._reply)
        if how == "truncate":
            return web.Response(text=text[: len(text) // 2], content_type="application/json")
        if how == "lie":
            return web.json_response([1, {"organic": "none"}, None])
        if how == "empty":
            return web.json_response({})
        self.paid[query] += 1
        return web.Response(text=text, content_type="application/json")

    @staticmethod
    def _query(request: web.Request, body: Any) -> str:
        body = body if isinstance(body, dict) else {}
        return str(request.query.get("q") or body.get("q") or body.get("query") or "")
