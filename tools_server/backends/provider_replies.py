"""Reads what search providers answer: results, "nothing found", or a failure of the provider's own that comes with status 200.

A list that is missing is not an empty list, and an empty list beside an error is no answer. Only a reply that has the
provider's documented form, no entries and no word of an error says that nothing was found; anything else raises. One malformed
entry is skipped; a list of malformed entries raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmsearch_jax.core.search_api import SearchResult

MALFORMED = (LookupError, TypeError, AttributeError, ValueError)
"""What the readers raise on a reply that does not have the documented form."""

_NOTHING_FOUND = re.compile(r"(hasn't|has not|didn't|did not) return(ed)? any results", re.IGNORECASE)
_KINDS = (
    ("rate_limited", re.compile(r"rate.?limit|too many|too fast|throttl|resource.?exhausted", re.IGNORECASE)),
    ("out_of_budget", re.compile(r"credit|quota|run out of|exceeded your|billing|payment", re.IGNORECASE)),
    ("not_authorised", re.compile(r"api.?key|unauthori[sz]ed|forbidden|permission|authenticat", re.IGNORECASE)),
)
_FAILED = ("error", "failed", "failure", "timeout", "timed out", "unavailable")
_VISION_CODES = {7: "not_authorised", 8: "rate_limited", 16: "not_authorised"}
"""google.rpc.Code in an annotation's error: PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED."""


class ProviderFailed(Exception):
    """The provider says, in a reply with status 200, that it could not search. `code` is a key of `search_api.ERRORS`."""

    def __init__(self, code: str, why: str):
        super().__init__(why)
        self.code, self.why = code, why


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


def results_of(read: Callable[[Any], Iterable[SearchResult]], reply: Any) -> list[SearchResult]:
    """What a provider's reader finds in a reply. An empty list beside an error is that error, not "nothing found".

    Raises:
      ProviderFailed: the provider says that it could not search.
      TypeError and the others of `MALFORMED`: the reply does not have the documented form.
    """
    found = list(read(reply))
    if not found:
        for told in (*_all_told(reply), _failed_status(reply)):
            if told and not _NOTHING_FOUND.search(told):
                raise ProviderFailed(_kind(told), told)
    return found


def fields(
    *path: str, title: str = "title", snippet: str = "snippet", url: str = "link"
) -> Callable[[Any], list[SearchResult]]:
    """A reader of the list at `path`, whose entries have these fields."""

    def read(reply: Any) -> list[SearchResult]:
        return _results(_list(reply, *path), title, snippet, url)

    return read


def serper(reply: Any) -> list[SearchResult]:
    """`organic`, after the answer box and the knowledge graph, if there are any."""
    boxes = _boxes(reply, "answerBox", "knowledgeGraph")
    if boxes and reply.get("organic") is None:
        return boxes
    return boxes + _results(_list(reply, "organic"))


def serper_lens(reply: Any) -> list[SearchResult]:
    """`organic`; some replies have the matches as `visual_matches`."""
    name = "organic" if _object(reply).get("organic") is not None else "visual_matches"
    return _results(_list(reply, name), snippet="source")


def serpapi(reply: Any) -> list[SearchResult]:
    """`organic_results`, after the boxes. SerpApi omits the list, and says so, where nothing was found."""
    boxes = _boxes(_serpapi_object(reply), "answer_box", "knowledge_graph")
    state = _object(reply.get("search_information") or {}).get("organic_results_state")
    if reply.get("organic_results") is None and (boxes or _found_nothing(reply) or state == "Fully empty"):
        return boxes
    return boxes + _results(_list(reply, "organic_results"))


def serpapi_lens(reply: Any) -> list[SearchResult]:
    """`exact_matches`, then `visual_matches`; either may be missing."""
    listed = [name for name in ("exact_matches", "visual_matches") if _serpapi_object(reply).get(name) is not None]
    if not listed and _found_nothing(reply):
        return []
    return _results([row for name in listed or ["visual_matches"] for row in _list(reply, name)], snippet="source")


def brave(reply: Any) -> list[SearchResult]:
    """`web.results`. Brave omits `web` where no page was found, and repeats the query in every answer."""
    answered = _object(reply).get("type") == "search" and isinstance(reply.get("query"), Mapping)
    if reply.get("web") is None and answered:
        return []
    return _results(_list(reply, "web", "results"), snippet="description", url="url")


def searxng(reply: Any) -> list[SearchResult]:
    """`answers` and `infoboxes`, then `results`. Without any of them an engine that gave no answer is a failure."""
    found = [_searxng_answer(answer) for answer in _optional(reply, "answers")]
    found += [_searxng_infobox(box) for box in _optional(reply, "infoboxes") if isinstance(box, Mapping)]
    found = [result for result in found if result.snippet]
    if found and _object(reply).get("results") is None:
        return found
    found += _results(_list(reply, "results"), snippet="content", url="url")
    silent = _optional(reply, "unresponsive_engines")
    if not found and silent:
        raise ProviderFailed("upstream_error", f"engines gave no answer: {', '.join(map(_engine, silent))}")
    return found


def retriever(reply: Any) -> list[SearchResult]:
    """Search-R1's `{"result": [[{"document": {...}, "score": ...}, ...]]}`; without scores there is no wrapper."""

    def read(row: Any) -> SearchResult:
        document = row.get("document", row)
        title, _, body = text(document["contents"]).partition("\n")
        name = text(document.get("id"))
        return SearchResult(title.strip('"'), body, text(document.get("url")), score=_score(row.get("score")), id=name)

    answers = _list(reply, "result")
    if not answers or not isinstance(answers[0], list):
        raise TypeError("'result' has no list for the query")
    return _each(answers[0], read)


def opensearch(reply: Any) -> list[SearchResult]:
    """`hits.hits`. Without any, a search that timed out or lost shards is a failure."""

    def read(hit: Any) -> SearchResult:
        source = hit["_source"]
        texts = (text(source.get(name)) for name in ("title", "text", "url"))
        return SearchResult(*texts, score=_score(hit.get("_score")), id=text(hit.get("_id")))

    found = _each(_list(reply, "hits", "hits"), read)
    shards = reply.get("_shards")
    shards = shards if isinstance(shards, Mapping) else {}
    lost = shards.get("failed") or (shards.get("total") and not shards.get("successful"))
    if not found and (reply.get("timed_out") or lost):
        raise ProviderFailed("upstream_error", "the search timed out or shards of the index failed")
    return found


def google_vision(reply: Any) -> list[SearchResult]:
    """The names of what is shown, then the pages. Google omits what is empty: an annotation `{}` found nothing."""
    answer = _object(_list(reply, "responses")[0])
    error = answer.get("error")
    if error:
        code = error.get("code") if isinstance(error, Mapping) else None
        known = _VISION_CODES.get(code) if isinstance(code, int) else None
        raise ProviderFailed(known or "upstream_error", _told(answer))
    web = _object(answer.get("webDetection") or {})
    names = [_or_nothing(row, "label") for row in _optional(web, "bestGuessLabels")]
    names += [_or_nothing(row, "description") for row in _optional(web, "webEntities")]
    named = ", ".join(dict.fromkeys(name for name in names if name))
    found = [SearchResult("What the image shows", named)] if named else []
    pages = [row for row in _optional(web, "pagesWithMatchingImages") if _or_nothing(row, "pageTitle")]
    return found + (_results(pages, "pageTitle", "", "url") if pages else [])


# Parts --------------------------------------------------------------------------------------------------------


def _object(reply: Any) -> Mapping[str, Any]:
    if not isinstance(reply, Mapping):
        raise TypeError(f"expected an object, got {type(reply).__name__}")
    return reply


def _list(reply: Any, *path: str) -> list[Any]:
    """The list at a path.

    Raises:
      ProviderFailed: there is none, and the reply tells of an error.
      TypeError: there is none.
    """
    found: Any = _object(reply)
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, list):
        return found
    told = _told(reply) if found is None else ""
    if told:
        raise ProviderFailed(_kind(told), told)
    raise TypeError(f"'{'.'.join(path)}' is not a list")


def _optional(reply: Any, name: str) -> list[Any]:
    """The list of this name, or an empty one if there is none."""
    return [] if _object(reply).get(name) is None else _list(reply, name)


def _told(reply: Mapping[str, Any]) -> str:
    """What a reply says about an error; "" if it does not."""
    return next(_all_told(reply), "")


def _all_told(reply: Mapping[str, Any]) -> Iterator[str]:
    for name in ("error", "errors", "detail", "message"):
        value = reply.get(name)
        while isinstance(value, list | Mapping) and value:
            inner = (
                value[0]
                if isinstance(value, list)
                else next(
                    (value[key] for key in ("message", "detail", "error", "reason", "code") if value.get(key)),
                    str(value),
                )
            )
            value = inner
        if value:
            yield str(value)


def _failed_status(reply: Mapping[str, Any]) -> str:
    """A status in the reply's body that is one of failure; "" if it has none."""
    for name in ("status", "statusCode", "status_code", "code"):
        value = reply.get(name)
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 400
        if number or (isinstance(value, str) and value.lower() in _FAILED):
            return f"{name} {value}"
    return next((f"{name} is false" for name in ("success", "ok") if reply.get(name) is False), "")


def _kind(told: str) -> str:
    """The code of `search_api.ERRORS` for what a provider says."""
    return next((code for code, words in _KINDS if words.search(told)), "upstream_error")


def _boxes(reply: Mapping[str, Any], answer: str, graph: str) -> list[SearchResult]:
    """Google's answer box and knowledge graph as results."""
    box, known = (part if isinstance(part, Mapping) else {} for part in (reply.get(answer), reply.get(graph)))
    said = _or_nothing(box, "answer") or _or_nothing(box, "snippet")
    found = [SearchResult(_or_nothing(box, "title"), said, _or_nothing(box, "link"))] if said else []
    about = _or_nothing(known, "description")
    if about:
        attributes = known.get("attributes")
        facts = [f"{label}: {value}" for label, value in attributes.items()] if isinstance(attributes, Mapping) else []
        url = _or_nothing(known, "descriptionLink") or _or_nothing(known, "website")
        found.append(SearchResult(_or_nothing(known, "title"), "; ".join([about, *facts]), url))
    return found


def _each(rows: Sequence[Any], read: Callable[[Any], SearchResult]) -> list[SearchResult]:
    found = []
    for row in rows:
        try:
            found.append(read(row))
        except MALFORMED:  # the others may be sound
            continue
    if rows and not any(result.title or result.snippet for result in found):
        raise TypeError("no entry of the list has the documented form")
    return found


def _results(
    rows: Sequence[Any], title: str = "title", snippet: str = "snippet", url: str = "link"
) -> list[SearchResult]:
    return _each(rows, lambda row: SearchResult(text(row.get(title)), text(row.get(snippet)), text(row.get(url))))


def _score(value: Any) -> float | None:
    return None if value is None else float(value)


def _serpapi_object(reply: Any) -> Mapping[str, Any]:
    metadata = _object(reply).get("search_metadata")
    status = metadata.get("status") if isinstance(metadata, Mapping) else None
    if status not in (None, "Success", "Cached"):
        raise ProviderFailed("upstream_error", f"the search has the status {status!r}")
    return reply


def _found_nothing(reply: Mapping[str, Any]) -> bool:
    return bool(_NOTHING_FOUND.search(text(reply.get("error"))))


def _searxng_answer(answer: Any) -> SearchResult:
    if isinstance(answer, Mapping):
        return SearchResult("Answer", _or_nothing(answer, "answer"), _or_nothing(answer, "url"))
    return SearchResult("Answer", answer if isinstance(answer, str) else "")


def _searxng_infobox(box: Mapping[str, Any]) -> SearchResult:
    lines = [_or_nothing(box, "content")]
    for row in box.get("attributes") or []:
        label, value = _or_nothing(row, "label"), _or_nothing(row, "value")
        if label and value:
            lines.append(f"{label}: {value}")
    links = [_or_nothing(row, "url") for row in box.get("urls") or []]
    return SearchResult(
        _or_nothing(box, "infobox"),
        "; ".join(filter(None, lines)),
        next(filter(None, links), "") or _or_nothing(box, "id"),
    )


def _or_nothing(row: Any, name: str) -> str:
    """A field of a part that may be malformed: "" then."""
    try:
        return text(row.get(name))
    except MALFORMED:
        return ""


def _engine(entry: Any) -> str:
    return ": ".join(str(part) for part in entry) if isinstance(entry, list) else str(entry)
