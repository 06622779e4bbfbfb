"""The HTTP interface between the trainer and the search server: routes, requests, replies, typed errors.

Imports neither JAX nor the network: both sides read and write these records as JSON objects.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from mmsearch_jax.core.errors import DataError

ROUTE_TEXT_SEARCH, ROUTE_IMAGE_SEARCH, ROUTE_GROUND = "/v1/text_search", "/v1/image_search", "/v1/ground"
ROUTE_IMAGES = "/v1/images"
ROUTE_RETRIEVE = "/retrieve"
ROUTE_HEALTH, ROUTE_READY, ROUTE_METRICS, ROUTE_OPENAPI = "/healthz", "/readyz", "/metrics", "/openapi.json"
BATCH = "/batch"
"""Suffix of a /v1 route for several requests in one."""

ERRORS = {
    "bad_request": 400,
    "not_authorised": 401,
    "out_of_budget": 402,
    "unknown_image": 404,
    "not_recorded": 404,
    "rate_limited": 429,
    "internal": 500,
    "upstream_error": 502,
    "overloaded": 503,
    "upstream_timeout": 504,
}
"""Code and HTTP status of every failure."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the image that was sent, after rotation by its EXIF tag; x1 and y1 exclusive."""

_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "None": (type(None),),
}


@dataclasses.dataclass(frozen=True)
class _Message:
    """A record that is sent as a JSON object; `to_json` writes the object, `from_json` checks and reads it."""

    def to_json(self) -> dict[str, Any]:
        """The JSON object (a dict of plain values)."""
        return {field.name: _plain(getattr(self, field.name)) for field in _fields(type(self))}

    @classmethod
    def from_json(cls, record: Any):
        """Reads the object; unknown fields are ignored so that the schema can grow.

        Raises:
          DataError: not an object, or a field is missing or has the wrong type; the message names it.
        """
        if not isinstance(record, Mapping):
            raise DataError(f"{cls.__name__}: expected a JSON object, got {type(record).__name__}")
        values: dict[str, Any] = {}
        for field in _fields(cls):
            if field.name in record:
                value = record[field.name]
                # A fast path for plain values, which most are: the server reads thousands of replies per second.
                if type(value) not in _plain_kinds(str(field.type)):
                    value = _checked(value, str(field.type), f"{cls.__name__}.{field.name}")
                values[field.name] = value
            elif field.default is dataclasses.MISSING:
                raise DataError(f"{cls.__name__}: the field '{field.name}' is missing")
        return cls(**values)


_fields = functools.cache(dataclasses.fields)


@functools.cache
def _plain_kinds(kind: str) -> frozenset[type]:
    """The JSON types that need no conversion."""
    return frozenset(t for name in kind.split(" | ") for t in _KINDS.get(name, ()))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.to_json() if isinstance(value, _Message) else value


def _checked(value: Any, kind: str, where: str) -> Any:
    if kind.startswith("tuple["):
        if not isinstance(value, list | tuple):
            raise DataError(f"{where}: expected a list of results, got {type(value).__name__}")
        if "SearchResult" in kind:
            return tuple(SearchResult.from_json(item) for item in value)
        return tuple(_box(item, where) for item in value)
    if "int" in kind.split(" | ") and isinstance(value, float) and value.is_integer():
        return int(value)  # JSON does not tell 10 from 10.0
    if kind.startswith("Box") and value is not None:
        return _box(value, where)
    raise DataError(f"{where}: expected {kind}, got {type(value).__name__}")


def _box(value: Any, where: str) -> Box:
    numbers = isinstance(value, list | tuple) and len(value) == 4
    if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise DataError(f"{where}: expected four numbers x0, y0, x1, y1, got {value!r}")
    try:
        x0, y0, x1, y1 = (int(v) for v in value)
    except (ValueError, OverflowError) as error:  # not a number, or infinite
        raise DataError(f"{where}: expected four finite numbers, got {value!r}") from error
    return x0, y0, x1, y1


def fit_text(text: str, max_chars: int, max_words: int = 0) -> str:
    """The text within limits: runs of white space become one blank, what is too long is cut, at a word if there is one.

    >>> fit_text("who  built the tower", 12)
    'who built'

    Args:
      max_words: 0 is no limit.
    """
    words = text.split()
    fitted = " ".join(words[:max_words] if max_words else words)
    if len(fitted) <= max_chars:
        return fitted
    whole = fitted[: max_chars + 1].rpartition(" ")[0]
    return whole if 2 * len(whole) >= max_chars else fitted[:max_chars].rstrip()


@dataclasses.dataclass(frozen=True)
class TextSearchRequest(_Message):
    """POST /v1/text_search.

    Attributes:
      query: what to search for.
      top_k: number of results requested.
      question: the question that the results should answer, for a server that summarises them; "" if not given.
      deadline_s: seconds after which the client no longer needs the answer; None leaves it to the server.
    """

    query: str
    top_k: int = 5
    question: str = ""
    deadline_s: float | None = None


@dataclasses.dataclass(frozen=True)
class ImageSearchRequest(_Message):
    """POST /v1/image_search and /v1/ground. Searches the whole image, or the part of it given by `expression` or `box`.

    Attributes:
      image_base64: an encoded image (JPEG, PNG, WebP, ...) in base64, or a `data:` URL of one.
      expression: description of the crop.
      top_k: number of results requested.
      image_id: instead of the bytes: the SHA-256 (hex) of an image that was sent to /v1/images.
      box: the crop in pixels; takes precedence over `expression`.
      deadline_s: seconds after which the client no longer needs the answer; None leaves it to the server.
    """

    image_base64: str = ""
    expression: str | None = None
    top_k: int = 5
    image_id: str = ""
    box: Box | None = None
    deadline_s: float | None = None


@dataclasses.dataclass(frozen=True)
class RequestLimits(_Message):
    """What a server accepts; `/readyz` tells them under "limits". The defaults are the server's own.

    Attributes:
      max_body_bytes: of a request.
      max_pixels: of an image.
      max_query_chars: of a query or a referring expression.
      max_top_k: results of one search.
      min_side: pixels of an image's shorter side.
      max_aspect: times that an image's longer side may be as long as the shorter one.
    """

    max_body_bytes: int = 16 * 2**20
    max_pixels: int = 24_000_000
    max_query_chars: int = 2000
    max_top_k: int = 20
    min_side: int = 8
    max_aspect: int = 200


@dataclasses.dataclass(frozen=True)
class SearchResult(_Message):
    """One search result. `id`: the passage's own in its corpus; "" if it has none."""

    title: str
    snippet: str
    url: str = ""
    thumbnail_base64: str | None = None
    score: float | None = None
    id: str = ""


@dataclasses.dataclass(frozen=True)
class SearchReply(_Message):
    """The reply of a search route.

    Attributes:
      results: best first.
      tool: "text_search", "image_search" or "ground".
      box: the region that was searched.
      grounded: false if the expression was not found (the whole image was searched) or there was none.
      note: a line that the reader of the results must see.
      elapsed_ms: time on the server.
      status: "ok", "no_results" or "no_detection" (which may still have results for the whole image). A client writes
        "refused" where the server refused what was asked; `note` says why.
      backend: name of the backend that returned the results.
      cached: whether they come from the cache.
      cost_usd: cost of this call; 0 if cached.
      summary: of the results; the policy reads it instead of them.
      summarised_by: "model", or "extract" (sentences of the results, if there is no model); "" without a summary.
      other_boxes: other regions that match the expression, best first.
      empty_checked: for a reply without results: the backend itself said that nothing matches. Replies that were kept
        before backends were asked this have false.
    """

    results: tuple[SearchResult, ...]
    tool: str
    box: Box | None = None
    grounded: bool = False
    note: str | None = None
    elapsed_ms: float = 0.0
    status: str = "ok"
    backend: str = ""
    cached: bool = False
    cost_usd: float = 0.0
    summary: str | None = None
    summarised_by: str = ""
    other_boxes: tuple[Box, ...] = ()
    empty_checked: bool = False


@dataclasses.dataclass(frozen=True)
class ErrorReply(_Message):
    """Body of every answer with an HTTP status of 400 or more; `code` is one of `ERRORS`."""

    code: str
    message: str
