"""Fetches from hostile or broken servers are bounded: bombs, endless and slow bodies, redirect loops, wrong types."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tests.tools_server.fetch.site import Site, raw_site
from tools_server.fetch.fetcher import Fetched, Fetcher, FetchFailed
from tools_server.fetch.guard import Guard
from tools_server.settings.page_reading import FetchLimits

SMALL = FetchLimits(max_bytes=100_000, max_decoded_bytes=300_000, max_redirects=3, timeout_s=5.0, max_per_host=4)
HTML = {"Content-Type": "text/html; charset=utf-8"}


def fetch(answer: Callable[[web.Request], Awaitable[web.StreamResponse]], **limits: Any) -> Fetched | str:
    """The page, or the reason for the failure."""

    async def go() -> Fetched | str:
        async with Site(answer) as site:
            return await got(site.url, site.allow, **limits)

    return asyncio.run(go())


async def got(url: str, allow: list[str], **limits: Any) -> Fetched | str:
    fetcher = Fetcher(Guard(allow), dataclasses.replace(SMALL, **limits), "test")
    try:
        return await fetcher.get(url)
    except FetchFailed as failed:
        return failed.reason


def answering(body: bytes, encoding: str = "", kind: str = "text/html", status: int = 200) -> Any:
    headers = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers, status=status)

    return answer


def deflated(data: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: deflated(data, -15)),
    ],
)
def test_a_page_comes_unpacked(encoding: str, pack: Callable[[bytes], bytes]):
    page = fetch(answering(pack(b"<p>hello</p>" * 100), encoding, "text/html; charset=latin-1"))
    assert page == Fetched(b"<p>hello</p>" * 100, "text/html", "latin-1")


@pytest.mark.parametrize("kind", ["application/xhtml+xml", "text/plain", "TEXT/HTML"])
def test_other_kinds_of_text_are_taken(kind: str):
    assert isinstance(fetch(answering(b"hello", kind=kind)), Fetched)


@pytest.mark.parametrize(
    "kind",
    ["application/pdf", "image/png", "application/octet-stream", "video/mp4", "text/html-not", "application/json", "x"],
)
def test_what_is_not_a_page_is_not_read(kind: str):
    assert fetch(answering(b"%PDF-1.7", kind=kind)) == "content_type"


@pytest.mark.parametrize("status", [204, 206, 400, 403, 404, 429, 500, 503])
def test_a_status_that_is_no_page_is_a_failure(status: int):
    assert fetch(answering(b"", status=status)) == "status"


def test_a_body_at_the_bound_is_taken_and_one_byte_more_is_not():
    assert isinstance(fetch(answering(b"a" * 100_000)), Fetched)
    assert fetch(answering(b"a" * 100_001)) == "too_large"
    assert isinstance(fetch(answering(gzip.compress(b"a" * 300_000), "gzip")), Fetched)
    assert fetch(answering(gzip.compress(b"a" * 300_001), "gzip")) == "too_large"


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
def test_a_bomb_is_put_out_before_it_unfolds(encoding: str, wbits: int):
    """20 MB in 20 KB: decompressed at most to one byte over the bound."""
    bomb = deflated(bytes(20_000_000), wbits)
    assert len(bomb) < SMALL.max_bytes
    assert fetch(answering(bomb, encoding)) == "too_large"


def test_a_bomb_in_a_bomb_unfolds_once():
    inner = gzip.compress(bytes(5_000_000))
    assert isinstance(page := fetch(answering(gzip.compress(inner), "gzip")), Fetched)
    assert page.body == inner


def test_a_body_without_end_is_cut_off():
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=HTML)
        await response.prepare(request)
        while True:
            await response.write(b"a" * 10_000)

    assert fetch(endless) == "too_large"


def test_a_packed_body_without_end_is_cut_off():
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**HTML, "Content-Encoding": "gzip"})
        await response.prepare(request)
        packer = zlib.compressobj(wbits=31)
        while True:
            await response.write(packer.compress(bytes(100_000)) + packer.flush(zlib.Z_SYNC_FLUSH))
            await asyncio.sleep(0)

    assert fetch(endless) == "too_large"


def test_a_body_that_drips_is_given_up_in_time():
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=HTML)
        await response.prepare(request)
        while True:
            await response.write(b"a")
            await asyncio.sleep(0.05)

    assert fetch(drip, timeout_s=0.5) == "timeout"


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX: "])
def test_headers_that_never_end_are_given_up_in_time(start: bytes):
    async def go() -> Fetched | str:
        async def drip(writer: asyncio.StreamWriter) -> None:
            writer.write(start)
            while not writer.is_closing():
                writer.write(b"a" if start else b"")
                await writer.drain()
                await asyncio.sleep(0.02)

        async with raw_site(drip) as port:
            return await got(f"http://127.0.0.1:{port}/", [f"127.0.0.1:{port}"], timeout_s=0.5)

    assert asyncio.run(go()) == "timeout"


@pytest.mark.parametrize(
    "said",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_failure_and_no_error(said: bytes):
    async def go() -> Fetched | str:
        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            await writer.drain()

        async with raw_site(answer) as port:
            return await got(f"http://127.0.0.1:{port}/", [f"127.0.0.1:{port}"])

    assert asyncio.run(go()) in ("connection", "refused")


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "nonsense"])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str):
    async def go() -> Fetched | str:
        async def answer(writer: asyncio.StreamWriter) -> None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {encoding}\r\nContent-Length: 3\r\n\r\n"
            writer.write(head.encode() + b"abc")
            await writer.drain()

        async with raw_site(answer) as port:
            return await got(f"http://127.0.0.1:{port}/", [f"127.0.0.1:{port}"])

    assert asyncio.run(go()) == "encoding"


def test_a_truncated_gzip_gives_what_it_holds_and_a_false_one_nothing():
    packed = gzip.compress(bytes(range(256)) * 100)
    page = fetch(answering(packed[: len(packed) - 20], "gzip"))
    assert isinstance(page, Fetched) and page.body and (bytes(range(256)) * 100).startswith(page.body)
    assert fetch(answering(b"this is not gzip", "gzip")) == "encoding"
    assert fetch(answering(b"\x00\x01garbage", "deflate")) == "encoding"


def test_redirects_are_followed_to_a_bound_and_loops_end():
    async def count_down(request: web.Request) -> web.Response:
        left = int(request.path.strip("/") or 0)
        if left:
            return web.Response(status=302, headers={"Location": f"/{left - 1}"})
        return web.Response(body=b"there", headers=HTML)

    async def go() -> None:
        async with Site(count_down) as site:
            assert isinstance(await got(site.url + "/3", site.allow), Fetched)
            assert await got(site.url + "/4", site.allow) == "redirects"

        async def loop(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": "/"})

        async with Site(loop) as site:
            assert await got(site.url, site.allow) == "redirects"
            assert len(site.requests) == 4

    asyncio.run(go())


def test_a_redirect_to_nowhere_is_a_failure():
    assert fetch(answering(b"", status=302)) == "status"


def test_headers_of_ours_stay_with_the_first_address_and_cookies_with_nobody():
    async def go() -> None:
        async def second(request: web.Request) -> web.Response:
            return web.Response(body=b"x", headers=HTML)

        async with Site(second) as other:

            async def first(request: web.Request) -> web.Response:
                return web.Response(status=302, headers={"Location": other.url, "Set-Cookie": "a=b; Domain=127.0.0.1"})

            async with Site(first) as site:
                fetcher = Fetcher(Guard(site.allow + other.allow), SMALL, "agent")
                await fetcher.get(site.url, {"Authorization": "Bearer secret"})
                assert site.requests[0].headers["Authorization"] == "Bearer secret"
                assert not {"Authorization", "Cookie", "Referer"} & set(other.requests[0].headers)
                assert other.requests[0].headers["User-Agent"] == "agent"

    asyncio.run(go())


def test_no_host_is_asked_for_more_pages_at_once_than_the_bound():
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(body=b"x", headers=HTML)

    async def go() -> None:
        async with Site(slow) as site:
            fetcher = Fetcher(Guard(site.allow), dataclasses.replace(SMALL, max_per_host=2), "test")
            await asyncio.gather(*(fetcher.get(site.url) for _ in range(10)))
            assert (site.peak, len(site.requests), fetcher._hosts) == (2, 10, {})

    asyncio.run(go())


def test_nobody_at_the_address_is_a_failure():
    assert asyncio.run(got("http://127.0.0.1:9/", ["127.0.0.1:9"])) == "connection"
