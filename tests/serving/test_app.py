"""The HTTP layer: tokens in any form, bodies with false labels, and what is refused before work."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.core.http_serving import app_runner
from mmsearch_jax.serving.app import create_app
from mmsearch_jax.serving.service import Service, exceeds
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import write_corpus
from tools_server.assembly import assemble
from tools_server.http_app import create_app as create_search_app


def policy_app(tmp_path: Any) -> web.Application:
    limits = SimpleNamespace(max_body_bytes=1 << 20)
    service: Any = SimpleNamespace(limits=limits, models=["m"], failure=None, load=dict)
    return create_app(service, "secret")


def search_app(tmp_path: Any) -> web.Application:
    config = default_config()
    config.corpus = str(write_corpus(tmp_path / "corpus"))
    assembly = assemble(settings_of(config))
    return create_search_app(assembly.load, assembly.limits, "secret")


APPS = {"serve": (policy_app, "/v1/chat/completions"), "serve-tools": (search_app, "/v1/text_search")}


def status_of(app: web.Application, request: bytes) -> tuple[int, bytes]:
    async def go() -> tuple[int, bytes]:
        runner = app_runner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(request)
        reply = await reader.read()
        writer.close()
        await runner.cleanup()
        return int(reply.split()[1]), reply.partition(b"\r\n\r\n")[2]

    return asyncio.run(go())


def post(route: str, body: bytes, *headers: bytes) -> bytes:
    head = [b"POST %s HTTP/1.1" % route.encode(), b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


@pytest.mark.parametrize("name", APPS)
def test_a_token_in_any_letters_is_compared_and_never_breaks_the_server(name: str, tmp_path: Any):
    make, route = APPS[name]
    app = make(tmp_path)
    for sent, admitted in (
        (b"Bearer secret", True),
        (b"bearer secret", True),
        (b"BEARER  secret ", True),
        (b"Bearer s\xe9cret", False),
        (b"Bearer \xff\xfe", False),
        ("Bearer s\u00e9cret".encode(), False),
        (b"Basic secret", False),
        (b"secret", False),
        (b"Bearer", False),
        (b"", False),
    ):
        status, body = status_of(app, post(route, b"{}", b"Authorization: " + sent))
        assert status == (400 if admitted else 401), (sent, body)
        app = make(tmp_path / (sent.hex() or "empty"))


@pytest.mark.parametrize("name", APPS)
@pytest.mark.parametrize("label", [b"gzip", b"deflate", b"x-gzip"])
@pytest.mark.parametrize("body", [b'{"model":"m"}', b"\x1f\x8b\x08\x00broken", b"\x78\x9c\xff"])
def test_a_body_with_a_false_label_is_the_callers_mistake(name: str, label: bytes, body: bytes, tmp_path: Any):
    make, route = APPS[name]
    request = post(route, body, b"Authorization: Bearer secret", b"Content-Encoding: " + label)
    status, told = status_of(make(tmp_path), request)
    assert status == 400
    assert b'"message"' in told


@pytest.mark.parametrize("name", APPS)
@pytest.mark.parametrize(
    "label", [b"br", b"zstd", b"compress", b"gzip, br", b"gzip\r\nContent-Encoding: gzip", b"\xff"]
)
def test_an_encoding_that_is_not_read_is_a_typed_error(name: str, label: bytes, tmp_path: Any, caplog: Any):
    make, route = APPS[name]
    request = post(route, b'{"model":"m"}', b"Authorization: Bearer secret", b"Content-Encoding: " + label)
    status, told = status_of(make(tmp_path), request)
    assert status == 400
    assert "send the body as it is, or with gzip or deflate" in json.dumps(json.loads(told))
    assert not caplog.records


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("label", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"X-GZIP", gzip.compress),
        (b"gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        (b"deflate", zlib.compress),
        (b"deflate", raw_deflate),
        (b"identity", bytes),
    ],
)
def test_compressed_bodies_are_read_up_to_the_limit(label: bytes, pack: Callable[[bytes], bytes], tmp_path: Any):
    headers = (b"Authorization: Bearer secret", b"Content-Encoding: " + label)
    body = pack(b'{"query":"capital of Velmora"}')
    status, told = status_of(search_app(tmp_path), post("/v1/text_search", body, *headers))
    assert (status, json.loads(told)["status"]) == (200, "ok"), told
    if label != b"identity":
        bomb = pack(b" " * (64 << 20))
        assert len(bomb) < 1 << 20
        status, told = status_of(search_app(tmp_path / "b"), post("/v1/text_search", bomb, *headers))
        assert (status, json.loads(told)["code"]) == (413, "bad_request")


class Letters:
    """Encodes one letter as one token, and counts what it was given."""

    def __init__(self) -> None:
        self.given = 0

    def encode(self, text: str) -> list[int]:
        self.given += len(text)
        return list(range(len(text)))


def test_a_text_that_cannot_fit_is_refused_before_all_of_it_is_encoded():
    letters: Any = Letters()
    assert exceeds(letters, ["x" * 8_000_000], 20_000)
    assert letters.given <= 2 * 16_384
    assert not exceeds(Letters(), ["x" * 5000, "y" * 5000], 10_000)  # pyright: ignore[reportArgumentType]
    assert exceeds(Letters(), ["x" * 15_000] * 3, 20_000)  # pyright: ignore[reportArgumentType]


def test_an_image_with_too_many_pixels_is_refused_by_its_header():
    out = io.BytesIO()
    Image.new("1", (9000, 9000)).save(out, "PNG")

    async def go() -> None:
        unpacked: list[bytes] = []
        service: Any = SimpleNamespace(
            limits=SimpleNamespace(max_pixels=10_000_000),
            _unpacking=asyncio.Semaphore(2),
            _engine=SimpleNamespace(prepare_image=unpacked.append),
        )
        with pytest.raises(ImageError, match="9000 x 9000 pixels, at most 10,000,000"):
            await Service._prepare(service, out.getvalue())
        assert not unpacked
        service.limits.max_pixels = 81_000_000
        await Service._prepare(service, out.getvalue())
        assert len(unpacked) == 1

    asyncio.run(go())
