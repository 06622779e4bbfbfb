"""Web search providers: the request of each, how its reply is read, and how it reports that the credit is spent.

A provider is a row of `TEXT` or `IMAGE`. Formats: the providers' own documentation, as of 2026. Prices are list prices per call
and only defaults of the settings.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmsearch_jax.core.search_api import SearchResult
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
      results: reads the decoded reply; may raise LookupError, TypeError, AttributeError or ValueError on a
        malformed reply.
      refusal: recognises the provider's own refusals by status and body: a code of `search_api.ERRORS`, or "".
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


def text(value: Any) -> str:
    """A field as text: "" if it is missing, joined if it is a list."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(text(item) for item in value)
    if isinstance(value, int | float | bool):
        return str(value)
    raise TypeError(f"expected text, got {type(value).__name__}")


def _rows(reply: Any, *path: str) -> list[Mapping[str, Any]]:
    for name in path:
        reply = reply.get(name) if isinstance(reply, Mapping) else None
    if reply is None:
        return []
    if not isinstance(reply, list) or not all(isinstance(row, Mapping) for row in reply):
        raise TypeError(f"'{'.'.join(path)}' is not a list of objects")
    return reply


def _read(
    *path: str, title: str = "title", snippet: str = "snippet", url: str = "link"
) -> Callable[[Any], list[SearchResult]]:
    def results(reply: Any) -> list[SearchResult]:
        rows = _rows(_object(reply), *path)
        return [SearchResult(text(row.get(title)), text(row.get(snippet)), text(row.get(url))) for row in rows]

    return results


def _object(reply: Any) -> Mapping[str, Any]:
    if not isinstance(reply, Mapping):
        raise TypeError(f"expected an object, got {type(reply).__name__}")
    return reply


# Text ---------------------------------------------------------------------------------------------------------


def _serper(ask: Ask) -> UpstreamRequest:
    return UpstreamRequest(
        "POST", f"{ask.base_url}/search", {"X-API-KEY": ask.key}, json={"q": ask.query, "num": max(ask.top_k, 10)}
    )


def _serper_results(reply: Any) -> list[SearchResult]:
    found = _read("organic")(reply)
    box = reply.get("answerBox")
    if isinstance(box, Mapping):
        answer = text(box.get("answer")) or text(box.get("snippet"))
        if answer:
            found.insert(0, SearchResult(text(box.get("title")), answer, text(box.get("link"))))
    return found


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
    params = {"q": ask.query[:400], "count": str(min(ask.top_k, 20))}
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


def _retriever_results(reply: Any) -> list[SearchResult]:
    found = []
    for row in _object(reply)["result"][0]:
        document = row.get("document", row)  # without scores there is no wrapper
        title, _, body = text(document["contents"]).partition("\n")
        score = row.get("score")
        found.append(
            SearchResult(
                title.strip('"'), body, text(document.get("url")), score=None if score is None else float(score)
            )
        )
    return found


def _opensearch(ask: Ask) -> UpstreamRequest:
    # The address names the index: https://host:9200/my-index. Title, text and url are the fields that are read.
    headers = {"Authorization": f"ApiKey {ask.key}"} if ask.key else {}
    match = {"multi_match": {"query": ask.query, "fields": ["title^2", "text"]}}
    body = {"size": ask.top_k, "query": match, "_source": ["title", "text", "url"]}
    return UpstreamRequest("POST", f"{ask.base_url}/_search", headers, json=body)


def _opensearch_results(reply: Any) -> list[SearchResult]:
    found = []
    for hit in _rows(_object(reply), "hits", "hits"):
        source = hit["_source"]
        score = hit.get("_score")
        found.append(
            SearchResult(
                text(source.get("title")),
                text(source.get("text")),
                text(source.get("url")),
                score=None if score is None else float(score),
            )
        )
    return found


TEXT: dict[str, Provider] = {
    "serper": Provider(
        "https://google.serper.dev", "SERPER_API_KEY", 0.001, 50.0, _serper, _serper_results, _serper_refusal
    ),
    "serpapi": Provider(
        "https://serpapi.com", "SERPAPI_API_KEY", 0.015, 5.0, _serpapi, _read("organic_results"), _serpapi_refusal
    ),
    "brave": Provider(
        "https://api.search.brave.com",
        "BRAVE_API_KEY",
        0.005,
        50.0,
        _brave,
        _read("web", "results", snippet="description", url="url"),
    ),
    "tavily": Provider(
        "https://api.tavily.com",
        "TAVILY_API_KEY",
        0.008,
        15.0,
        _tavily,
        _read("results", snippet="content", url="url"),
        _tavily_refusal,
    ),
    "exa": Provider(
        "https://api.exa.ai", "EXA_API_KEY", 0.005, 5.0, _exa, _read("results", snippet="highlights", url="url")
    ),
    "searxng": Provider(
        "http://127.0.0.1:8080",
        "",
        0.0,
        5.0,
        _searxng,
        _read("results", snippet="content", url="url"),
        _searxng_refusal,
    ),
    "retriever": Provider("http://127.0.0.1:8000", "", 0.0, 1000.0, _retriever, _retriever_results),
    "opensearch": Provider("http://127.0.0.1:9200/pages", "", 0.0, 200.0, _opensearch, _opensearch_results),
}


# Images -------------------------------------------------------------------------------------------------------


def _serper_lens(ask: Ask) -> UpstreamRequest:
    return UpstreamRequest("POST", f"{ask.base_url}/lens", {"X-API-KEY": ask.key}, json={"url": ask.query})


def _serper_lens_results(reply: Any) -> list[SearchResult]:
    # Some replies have the matches under another name.
    name = "organic" if _object(reply).get("organic") is not None else "visual_matches"
    return _read(name, snippet="source")(reply)


def _serpapi_lens(ask: Ask) -> UpstreamRequest:
    params = {"engine": "google_lens", "url": ask.query, "api_key": ask.key}
    return UpstreamRequest("GET", f"{ask.base_url}/search.json", params=params)


def _serpapi_lens_results(reply: Any) -> list[SearchResult]:
    return _read("exact_matches", snippet="source")(reply) + _read("visual_matches", snippet="source")(reply)


def _google_vision(ask: Ask) -> UpstreamRequest:
    body = {
        "requests": [
            {"image": {"content": ask.query}, "features": [{"type": "WEB_DETECTION", "maxResults": max(ask.top_k, 10)}]}
        ]
    }
    return UpstreamRequest("POST", f"{ask.base_url}/v1/images:annotate", {"X-Goog-Api-Key": ask.key}, json=body)


def _google_vision_results(reply: Any) -> list[SearchResult]:
    answer = _rows(_object(reply), "responses")[0]
    if "error" in answer:
        raise ValueError(f"the service answered {text(answer['error'].get('message'))[:100]!r}")
    web = answer.get("webDetection") or {}
    names = [text(row.get("label")) for row in _rows(web, "bestGuessLabels")]
    names += [text(row.get("description")) for row in _rows(web, "webEntities")]
    named = ", ".join(dict.fromkeys(name for name in names if name))
    found = [SearchResult("What the image shows", named)] if named else []
    for page in _rows(web, "pagesWithMatchingImages"):
        found.append(SearchResult(text(page.get("pageTitle")), "", text(page.get("url"))))
    return found


IMAGE: dict[str, Provider] = {
    "serper_lens": Provider(
        "https://google.serper.dev",
        "SERPER_API_KEY",
        0.003,
        50.0,
        _serper_lens,
        _serper_lens_results,
        _serper_refusal,
        wants="url",
    ),
    "serpapi_lens": Provider(
        "https://serpapi.com",
        "SERPAPI_API_KEY",
        0.015,
        5.0,
        _serpapi_lens,
        _serpapi_lens_results,
        _serpapi_refusal,
        wants="url",
    ),
    "google_vision": Provider(
        "https://vision.googleapis.com",
        "GOOGLE_VISION_API_KEY",
        0.0035,
        30.0,
        _google_vision,
        _google_vision_results,
        wants="bytes",
    ),
}


def in_base64(data: bytes) -> str:
    """Bytes in base64, for JSON."""
    return base64.b64encode(data).decode()
