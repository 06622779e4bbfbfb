"""Web search providers: the request of each, how its reply is read, and how it reports that the credit is spent.

A provider is a row of `TEXT` or `IMAGE`. Formats: the providers' own documentation, as of 2026. Prices are list prices per call
and only defaults of the settings.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from mmsearch_jax.core.search_api import SearchResult
from tools_server.backends import provider_replies as replies
from tools_server.backends.upstream import UpstreamRequest
from tools_server.failures import SearchFailure


@dataclasses.dataclass(frozen=True)
class Ask:
    """One query to a provider. For image providers `query` is the image's public address, or its bytes in base64."""

    base_url: str
    key: str
    query: str
    top_k: int


@dataclasses.dataclass(frozen=True)
class Provider:
    """How a provider is used.

    Attributes:
      url: its address, up to the part that `request` adds.
      key_env: default environment variable with the key; "" if no key is needed.
      cost_usd: list price of one call.
      calls_per_s: rate that its ordinary plan allows.
      request: makes the HTTP request.
      results: reads the decoded reply; raises one of `provider_replies.MALFORMED` on a malformed reply, and
        `ProviderFailed` if the provider says that it could not search.
      refusal: recognises the provider's own refusals by status and body: a code of `search_api.ERRORS`, or "".
      max_query_chars, max_query_words: what the provider accepts (a longer query is cut, at a word); 0: no limit of words.
      wants: "text", "url" (a public address of the image) or "bytes".
    """

    url: str
    key_env: str
    cost_usd: float
    calls_per_s: float
    request: Callable[[Ask], UpstreamRequest]
    results: Callable[[Any], Iterable[SearchResult]]
    refusal: Callable[[int, str], str] = lambda status, body: ""
    wants: str = "text"
    max_query_chars: int = 2000
    max_query_words: int = 0


def refusal_of(name: str, provider: Provider) -> Callable[[int, str], SearchFailure | None]:
    """A provider's refusals as failures."""
    hints = {
        "out_of_budget": "its plan's credit is spent: add credit, or put another backend after it",
        "not_authorised": f"is the key in {provider.key_env} right?",
    }

    def read(status: int, body: str) -> SearchFailure | None:
        code = provider.refusal(status, body)
        return SearchFailure(code, f"{name} answered HTTP {status}: {hints[code]}") if code else None

    return read


# Text ---------------------------------------------------------------------------------------------------------


def _serper(ask: Ask) -> UpstreamRequest:
    return UpstreamRequest(
        "POST", f"{ask.base_url}/search", {"X-API-KEY": ask.key}, json={"q": ask.query, "num": max(ask.top_k, 10)}
    )


def _serper_refusal(status: int, body: str) -> str:
    # This 400 is final and does not concern the query.
    return "out_of_budget" if status == 400 and "not enough credits" in body.lower() else ""


def _serpapi(ask: Ask) -> UpstreamRequest:
    params = {"engine": "google", "q": ask.query, "api_key": ask.key}
    return UpstreamRequest("GET", f"{ask.base_url}/search.json", params=params)


def _serpapi_refusal(status: int, body: str) -> str:
    # 429 has two meanings: too fast (passes), or no searches left (does not pass).
    spent = status == 429 and ("run out of searches" in body.lower() or "plan" in body.lower())
    return "out_of_budget" if spent else ""


def _brave(ask: Ask) -> UpstreamRequest:
    headers = {"X-Subscription-Token": ask.key, "Accept": "application/json"}
    params = {"q": ask.query, "count": str(min(ask.top_k, 20))}
    return UpstreamRequest("GET", f"{ask.base_url}/res/v1/web/search", headers, params)


def _tavily(ask: Ask) -> UpstreamRequest:
    body = {"query": ask.query, "max_results": min(ask.top_k, 20), "search_depth": "basic"}
    return UpstreamRequest("POST", f"{ask.base_url}/search", {"Authorization": f"Bearer {ask.key}"}, json=body)


def _tavily_refusal(status: int, body: str) -> str:
    return "out_of_budget" if status in (432, 433) else ""


def _exa(ask: Ask) -> UpstreamRequest:
    body = {"query": ask.query, "numResults": ask.top_k, "contents": {"highlights": True}}
    return UpstreamRequest("POST", f"{ask.base_url}/search", {"x-api-key": ask.key}, json=body)


def _searxng(ask: Ask) -> UpstreamRequest:
    return UpstreamRequest("GET", f"{ask.base_url}/search", params={"q": ask.query, "format": "json", "pageno": "1"})


def _searxng_refusal(status: int, body: str) -> str:
    return "not_authorised" if status == 403 else ""


def _retriever(ask: Ask) -> UpstreamRequest:
    body = {"queries": [ask.query], "topk": ask.top_k, "return_scores": True}
    return UpstreamRequest("POST", f"{ask.base_url}/retrieve", json=body)


def _opensearch(ask: Ask) -> UpstreamRequest:
    # The address names the index: https://host:9200/my-index. Title, text and url are the fields that are read.
    headers = {"Authorization": f"ApiKey {ask.key}"} if ask.key else {}
    match = {"multi_match": {"query": ask.query, "fields": ["title^2", "text"]}}
    body = {"size": ask.top_k, "query": match, "_source": ["title", "text", "url"]}
    return UpstreamRequest("POST", f"{ask.base_url}/_search", headers, json=body)


TEXT: dict[str, Provider] = {
    "serper": Provider(
        "https://google.serper.dev", "SERPER_API_KEY", 0.001, 50.0, _serper, replies.serper, _serper_refusal
    ),
    "serpapi": Provider(
        "https://serpapi.com", "SERPAPI_API_KEY", 0.015, 5.0, _serpapi, replies.serpapi, _serpapi_refusal
    ),
    "brave": Provider(
        "https://api.search.brave.com",
        "BRAVE_API_KEY",
        0.005,
        50.0,
        _brave,
        replies.brave,
        max_query_chars=400,
        max_query_words=50,
    ),
    "tavily": Provider(
        "https://api.tavily.com",
        "TAVILY_API_KEY",
        0.008,
        15.0,
        _tavily,
        replies.fields("results", snippet="content", url="url"),
        _tavily_refusal,
        max_query_chars=400,
    ),
    "exa": Provider(
        "https://api.exa.ai",
        "EXA_API_KEY",
        0.005,
        5.0,
        _exa,
        replies.fields("results", snippet="highlights", url="url"),
    ),
    "searxng": Provider("http://127.0.0.1:8080", "", 0.0, 5.0, _searxng, replies.searxng, _searxng_refusal),
    "retriever": Provider("http://127.0.0.1:8000", "", 0.0, 1000.0, _retriever, replies.retriever),
    "opensearch": Provider("http://127.0.0.1:9200/pages", "", 0.0, 200.0, _opensearch, replies.opensearch),
}


# Images -------------------------------------------------------------------------------------------------------


def _serper_lens(ask: Ask) -> UpstreamRequest:
    return UpstreamRequest("POST", f"{ask.base_url}/lens", {"X-API-KEY": ask.key}, json={"url": ask.query})


def _serpapi_lens(ask: Ask) -> UpstreamRequest:
    params = {"engine": "google_lens", "url": ask.query, "api_key": ask.key}
    return UpstreamRequest("GET", f"{ask.base_url}/search.json", params=params)


def _google_vision(ask: Ask) -> UpstreamRequest:
    body = {
        "requests": [
            {"image": {"content": ask.query}, "features": [{"type": "WEB_DETECTION", "maxResults": max(ask.top_k, 10)}]}
        ]
    }
    return UpstreamRequest("POST", f"{ask.base_url}/v1/images:annotate", {"X-Goog-Api-Key": ask.key}, json=body)


IMAGE: dict[str, Provider] = {
    "serper_lens": Provider(
        "https://google.serper.dev",
        "SERPER_API_KEY",
        0.003,
        50.0,
        _serper_lens,
        replies.serper_lens,
        _serper_refusal,
        wants="url",
    ),
    "serpapi_lens": Provider(
        "https://serpapi.com",
        "SERPAPI_API_KEY",
        0.015,
        5.0,
        _serpapi_lens,
        replies.serpapi_lens,
        _serpapi_refusal,
        wants="url",
    ),
    "google_vision": Provider(
        "https://vision.googleapis.com",
        "GOOGLE_VISION_API_KEY",
        0.0035,
        30.0,
        _google_vision,
        replies.google_vision,
        wants="bytes",
    ),
}


def in_base64(data: bytes) -> str:
    """Bytes in base64, for JSON."""
    return base64.b64encode(data).decode()
