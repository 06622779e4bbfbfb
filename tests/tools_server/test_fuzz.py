"""A running server answers any request with a status and a body from its OpenAPI document, and keeps running."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import checks

from mmsearch_jax.core import search_api
from mmsearch_jax.core.search_api import ErrorReply, SearchReply
from mmsearch_jax.jobs.search_server import Server, start_server
from tests.tools_server.small_corpus import write_corpus
from tools_server import http_schema as schema
from tools_server.settings.answering import ServiceLimits

EXAMPLES = 30
DOCUMENT = schemathesis.openapi.from_dict(schema.openapi(ServiceLimits()))
# Without the check that valid requests succeed: the schema allows any string as an image.
checks.load_all_checks()
CHECKS = [
    checks.not_a_server_error,
    *checks.CHECKS.get_by_names(["status_code_conformance", "content_type_conformance", "response_schema_conformance"]),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(write_corpus(tmp_path_factory.mktemp("fuzz") / "corpus")) as running:
        yield running


@DOCUMENT.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_requests_by_the_schema_and_against_it_get_documented_answers(case: schemathesis.Case, server: Server):
    case.call_and_validate(base_url=server.url, checks=CHECKS)


def encoded(form: str) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(out, form)
    return out.getvalue()


WHOLE = [encoded(form) for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(1, len(data)))])


@given(data=st.one_of(st.binary(max_size=200), damaged()), expression=st.one_of(st.none(), st.text(max_size=20)))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_images_that_are_damaged_or_none_are_searched_or_refused(server: Server, data: bytes, expression: str | None):
    body = {"image_base64": base64.b64encode(data).decode(), "expression": expression}
    response = requests.post(server.url + search_api.ROUTE_IMAGE_SEARCH, json=body, timeout=30)
    if response.status_code == 200:
        SearchReply.from_json(response.json())
    else:
        assert (response.status_code, ErrorReply.from_json(response.json()).code) == (400, "bad_request")


@given(body=st.binary(max_size=300), kind=st.sampled_from(["application/json", "text/plain", "x/y; charset=none"]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bodies_that_are_no_json_are_refused(server: Server, body: bytes, kind: str):
    route = server.url + search_api.ROUTE_TEXT_SEARCH
    response = requests.post(route, data=body, headers={"Content-Type": kind}, timeout=30)
    assert response.status_code == 400
    assert ErrorReply.from_json(response.json()).code == "bad_request"


@pytest.mark.parametrize("name", ["query", "question"])
def test_half_a_character_is_refused_wherever_it_stands(server: Server, name: str):
    body = {"query": "velmora", name: "\ud800"}
    response = requests.post(server.url + search_api.ROUTE_TEXT_SEARCH, json=body, timeout=30)
    assert (response.status_code, name in response.json()["message"]) == (400, True)
