"""The OpenAPI document: what client generators need beyond the routes."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmsearch_jax.core.search_api import ImageSearchRequest, SearchReply, TextSearchRequest
from tools_server.http_schema import openapi
from tools_server.settings.answering import ServiceLimits

DOCUMENT = openapi(ServiceLimits())


def operations() -> list[dict[str, Any]]:
    return [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]


def test_every_operation_has_a_name_of_its_own():
    names = [operation["operationId"] for operation in operations()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    assert {"text_search", "text_search_batch", "image_search", "ground", "retrieve", "images"} <= set(names)


def test_a_client_may_send_a_bearer_token_or_none():
    (name,) = DOCUMENT["components"]["securitySchemes"]
    scheme = DOCUMENT["components"]["securitySchemes"][name]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert DOCUMENT["security"] == [{name: []}, {}]


def test_defaults_and_required_fields_are_those_of_the_records():
    for kind in (TextSearchRequest, ImageSearchRequest, SearchReply):
        described = DOCUMENT["components"]["schemas"][kind.__name__]
        for field in dataclasses.fields(kind):
            if field.default is dataclasses.MISSING:
                assert field.name in described["required"]
            elif not isinstance(field.default, tuple):
                assert described["properties"][field.name]["default"] == field.default, field.name


def test_a_field_that_may_be_null_says_so():
    expression = DOCUMENT["components"]["schemas"]["ImageSearchRequest"]["properties"]["expression"]
    assert {"type": "null"} in expression["anyOf"]
    assert expression["default"] is None
