"""Only the public web is reached: a corpus of tricks, names that change their answer, and redirects."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from tests.tools_server.fetch.site import Site, listener
from tests.tools_server.fetch.ssrf_tricks import NAMES, TRICKS
from tools_server.fetch.fetcher import Fetcher, FetchFailed
from tools_server.fetch.guard import Guard, Refused
from tools_server.settings.page_reading import FetchLimits

LIMITS = FetchLimits(timeout_s=5.0)


async def answer(host: str, port: int) -> list[str]:
    if host.rstrip(".") not in NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    return NAMES[host.rstrip(".")]


def fetcher(guard: Guard) -> Fetcher:
    return Fetcher(guard, LIMITS, "test")


async def failure(made: Fetcher, url: str) -> str:
    with pytest.raises(FetchFailed) as caught:
        await made.get(url)
    return caught.value.reason


def test_the_corpus_is_as_large_as_it_must_be():
    assert len(set(TRICKS)) == len(TRICKS) >= 60


def test_no_trick_gets_through(monkeypatch: pytest.MonkeyPatch):
    """The guard refuses each trick before a socket is opened."""
    opened: list[str] = []

    async def go() -> None:
        async with listener() as (port, connections):
            connect = asyncio.get_running_loop().sock_connect

            async def watched(sock: socket.socket, address: Any) -> None:
                opened.append(str(address))
                await connect(sock, address)

            monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", watched)
            made = fetcher(Guard(resolver=answer))
            reasons = {trick: await failure(made, trick.replace("{port}", str(port))) for trick in TRICKS}
            assert {trick: reason for trick, reason in reasons.items() if reason not in ("refused", "dns")} == {}
            assert [t for t, reason in reasons.items() if reason == "dns"] == [
                "http://[v1.x]/",
                "http://no-such-name.example/",
            ]
            assert (connections, opened) == ([], [])
            # Shows that the listener counts connections.
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await asyncio.sleep(0.05)
            assert connections == [1]

    asyncio.run(go())


@pytest.mark.parametrize(
    "url",
    [
        "http://public.example/",
        "https://public.example/a?b=c#d",
        "http://93.184.215.14/",
        "http://public.example:80/",
        "http://[2606:4700::1]/",
        "http://PUBLIC.example/päge",
    ],
)
def test_pages_of_the_web_are_admitted(url: str):
    admitted = asyncio.run(Guard(resolver=answer).admit(url))
    assert [str(a) for a in admitted.addresses] in (["93.184.215.14"], ["2606:4700::1"])


def test_a_name_is_resolved_once_and_what_was_checked_is_what_is_connected_to():
    """DNS rebinding: the second lookup would give another machine."""
    asked: list[str] = []

    async def go() -> None:
        async def rebinding(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        async with Site(lambda r: page("hello")) as site:
            made = fetcher(Guard([f"127.0.0.1:{site.port}", f"rebind.example:{site.port}"], resolver=rebinding))
            assert (await made.get(f"http://rebind.example:{site.port}/")).body == b"hello"
            assert asked == ["rebind.example"]
            assert site.requests[0].headers["Host"] == f"rebind.example:{site.port}"

        async def turned(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["93.184.215.14"] if len(asked) == 2 else ["127.0.0.1"]

        guard = Guard(resolver=turned)
        await guard.admit("http://public.example/")
        with pytest.raises(Refused):
            await guard.admit("http://public.example/")

    asyncio.run(go())


async def page(text: str, **options: Any) -> web.Response:
    return web.Response(text=text, content_type="text/html", **options)


def follow(location: Callable[[int], str], status: int = 302) -> tuple[str, list[int], int]:
    """Fetches from an allowed site that redirects; returns the error, the target's connections, the site's requests."""

    async def go() -> tuple[str, list[int], int]:
        async with listener() as (port, connections):

            async def send_on(request: web.Request) -> web.Response:
                return web.Response(status=status, headers={"Location": location(port)})

            async with Site(send_on) as site:
                reason = await failure(fetcher(Guard(site.allow, resolver=answer)), site.url)
                return reason, connections, len(site.requests)

    return asyncio.run(go())


TARGETS = [
    t for t in TRICKS if "\r" not in t and "\n" not in t and "\x00" not in t and "\ud800" not in t and "://" in t
]


def test_a_redirect_to_a_forbidden_target_is_not_followed():
    """An allowed site must not redirect to any of the tricks. One event loop for all keeps the test short."""

    async def go() -> None:
        async with listener() as (port, connections):
            current = ""

            async def send_on(request: web.Request) -> web.Response:
                return web.Response(status=302, headers={"Location": current})

            async with Site(send_on) as site:
                made = fetcher(Guard(site.allow, resolver=answer))
                for trick in TARGETS:
                    current, before = trick.replace("{port}", str(port)), len(site.requests)
                    assert await failure(made, site.url) in ("refused", "dns"), trick
                    assert len(site.requests) == before + 1, trick
                assert connections == []

    assert len(TARGETS) > 100
    asyncio.run(go())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_passes_the_guard(status: int):
    assert follow(lambda port: f"http://127.0.0.1:{port}/", status) == ("refused", [], 1)


def test_a_redirect_without_a_scheme_stays_within_the_guard():
    assert follow(lambda port: f"//127.0.0.1:{port}/") == ("refused", [], 1)
    assert follow(lambda port: "//169.254.169.254/latest") == ("refused", [], 1)


def test_an_allowed_port_opens_no_other_port_and_no_other_name_of_this_machine():
    async def go() -> None:
        async with listener() as (port, connections), Site(lambda r: page("in")) as site:
            made = fetcher(Guard(site.allow, resolver=answer))
            assert (await made.get(site.url)).body == b"in"
            for url in (
                f"http://127.0.0.1:{port}/",
                f"http://127.0.0.2:{site.port}/",
                f"http://[::1]:{site.port}/",
                f"http://2130706433:{site.port}/",
                f"http://loopback.example:{site.port}/",
                "http://127.0.0.1/",
                f"http://user@127.0.0.1:{site.port}/",
                f"ftp://127.0.0.1:{site.port}/",
            ):
                assert await failure(made, url) == "refused", url
            assert (connections, len(site.requests)) == ([], 1)

    asyncio.run(go())


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch):
    async def go() -> None:
        async with listener() as (port, connections), Site(lambda r: page("in")) as site:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            assert (await fetcher(Guard(site.allow)).get(site.url)).body == b"in"
            assert connections == []

    asyncio.run(go())
