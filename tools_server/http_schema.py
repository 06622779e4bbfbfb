"""The routes as an OpenAPI document, made from the request and reply records, and the format of Search-R1's `/retrieve`."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmsearch_jax import __version__
from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.search_api import (
    ERRORS,
    ErrorReply,
    ImageSearchRequest,
    SearchReply,
    SearchResult,
    TextSearchRequest,
)
from tools_server.settings.answering import ServiceLimits

_BOX = {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}
_TYPES: dict[str, Any] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Box": _BOX,
    "tuple[Box, ...]": {"type": "array", "items": _BOX},
    "tuple[SearchResult, ...]": {"type": "array", "items": {"$ref": "#/components/schemas/SearchResult"}},
}
_MESSAGES = (TextSearchRequest, ImageSearchRequest, SearchResult, SearchReply, ErrorReply)


def openapi(limits: ServiceLimits) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "mmsearch tools server", "version": __version__},
        "paths": _paths(limits),
        "components": {
            "schemas": {kind.__name__: _schema(kind, limits) for kind in _MESSAGES},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "where the server has a token (token_env)"}
            },
        },
        # The second, empty one: a server without a token accepts every caller.
        "security": [{"token": []}, {}],
    }


def read_retrieve(body: Any) -> tuple[list[str], int, bool]:
    """Queries, results per query, and whether scores are wanted, of a request to `/retrieve`.

    A client sends a whole rollout batch: any number of queries, none of them if nobody searched, some of them empty.

    Raises:
      DataError: not of the documented form. Some clients send only `query`, which is accepted, too.
    """
    if not isinstance(body, dict):
        raise DataError(f"expected a JSON object, got {type(body).__name__}")
    queries = body.get("queries", body.get("query"))
    queries = [queries] if isinstance(queries, str) else queries
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise DataError("'queries' must be a list of strings")
    top_k = body.get("topk")
    if isinstance(top_k, float) and top_k.is_integer():
        top_k = int(top_k)
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool)):
        raise DataError("'topk' must be a whole number")
    return queries, 3 if top_k is None else top_k, bool(body.get("return_scores", False))


def documents(reply: SearchReply, scores: bool) -> list[dict[str, Any]]:
    """A reply's results as Search-R1's clients read them."""
    found = []
    for i, result in enumerate(reply.results):
        document = {"id": result.id or result.url or str(i), "contents": f'"{result.title}"\n{result.snippet}'}
        # Providers without scores still rank: the score follows from the rank.
        found.append({"document": document, "score": result.score or 1.0 / (i + 1)} if scores else document)
    return found


def _schema(kind: type, limits: ServiceLimits) -> dict[str, Any]:
    properties, required = {}, []
    for field in dataclasses.fields(kind):
        name, _, optional = str(field.type).partition(" | ")
        described = dict(_TYPES[name])
        if field.name == "top_k":
            described |= {"minimum": 1, "maximum": limits.max_top_k}
        if field.name in ("query", "expression"):
            described |= {"minLength": 1, "maxLength": limits.max_query_chars, "pattern": r"\S"}
        if field.name == "deadline_s":
            described |= {"exclusiveMinimum": 0}
        if field.name == "code":
            described |= {"enum": list(ERRORS)}
        properties[field.name] = {"anyOf": [described, {"type": "null"}]} if optional else described
        if field.default is dataclasses.MISSING:
            required.append(field.name)
        elif isinstance(field.default, bool | int | float | str) or field.default is None:
            properties[field.name] = {**properties[field.name], "default": field.default}
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n\n")[0],
        "properties": properties,
        "required": required,
    }


def _paths(limits: ServiceLimits) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for route, kind in (
        (search_api.ROUTE_TEXT_SEARCH, TextSearchRequest),
        (search_api.ROUTE_IMAGE_SEARCH, ImageSearchRequest),
        (search_api.ROUTE_GROUND, ImageSearchRequest),
    ):
        paths[route] = {"post": _operation(_ref(kind), _ref(SearchReply))}
        many = {"type": "array", "items": _ref(kind), "minItems": 1, "maxItems": limits.max_batch}
        replies = {"type": "array", "items": {"anyOf": [_ref(SearchReply), _ref(ErrorReply)]}}
        paths[route + search_api.BATCH] = {"post": _operation(_object(requests=many), _object(replies=replies))}
    queries = {"type": "array", "items": {"type": "string"}}
    asked = _object(queries=queries)
    asked["properties"] |= {
        "topk": {"type": "integer", "minimum": 1, "maximum": limits.max_top_k},
        "return_scores": {"type": "boolean"},
    }
    found = {"type": "array", "items": {"type": "array", "items": {"type": "object"}}}
    paths[search_api.ROUTE_RETRIEVE] = {"post": _operation(asked, _object(result=found))}
    image = _operation(
        {"type": "string", "format": "binary"}, _object(image_id={"type": "string"}), "application/octet-stream"
    )
    paths[search_api.ROUTE_IMAGES] = {"post": image}
    for route in (search_api.ROUTE_HEALTH, search_api.ROUTE_READY):
        paths[route] = {
            "get": {"responses": {"200": _content(_object(status={"type": "string"}), "what its name says")}}
        }
    for route, methods in paths.items():
        for operation in methods.values():
            operation["operationId"] = "_".join(part for part in route.strip("/").split("/") if part != "v1")
    return paths


def _operation(asked: dict[str, Any], answered: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    errors = sorted({413, *ERRORS.values()})
    return {
        "requestBody": {"required": True, "content": {media: {"schema": asked}}},
        "responses": {
            "200": _content(answered, "an answer"),
            **{str(status): _content(_ref(ErrorReply), "a typed failure") for status in errors},
        },
    }


def _content(described: dict[str, Any], text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": described}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
