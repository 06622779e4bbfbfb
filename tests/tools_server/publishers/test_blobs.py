"""Images on the server's own route: they can be fetched by name until they expire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tools_server.failures import SearchFailure
from tools_server.publishers.blobs import BlobPublisher


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def published(
    talk: Callable[[BlobPublisher, TestClient, Clock], Awaitable[None]], ttl_s: float = 60.0, max_bytes: int = 1000
) -> None:
    async def go() -> None:
        clock, app = Clock(), web.Application()
        publisher = BlobPublisher("https://images.example/base/", ttl_s, max_bytes, clock)
        publisher.add_routes(app)
        async with TestClient(TestServer(app)) as client:
            await talk(publisher, client, clock)

    asyncio.run(go())


def path_of(address: str) -> str:
    assert address.startswith("https://images.example/base/blobs/")
    return address.removeprefix("https://images.example/base")


def test_an_image_is_fetched_under_its_address_as_an_image_and_nothing_else():
    async def talk(publisher: BlobPublisher, client: TestClient, clock: Clock) -> None:
        response = await client.get(path_of(await publisher.publish(b"jpeg")))
        assert (response.status, await response.read(), response.content_type) == (200, b"jpeg", "image/jpeg")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response.headers["Content-Security-Policy"]

    published(talk)


def test_names_cannot_be_guessed():
    async def talk(publisher: BlobPublisher, client: TestClient, clock: Clock) -> None:
        names = {path_of(await publisher.publish(b"x")) for _ in range(100)}
        assert len(names) == 100
        # 24 random bytes, in base64.
        assert {len(name) for name in names} == {len("/blobs/") + 32 + len(".jpg")}

    published(talk)


@pytest.mark.parametrize(
    "path", ["/blobs/x.jpg", "/blobs/", "/blobs", "/blobs/..%2f..%2fetc%2fpasswd", "/blobs/" + "a" * 5000]
)
def test_a_name_that_was_never_given_is_not_found(path: str):
    async def talk(publisher: BlobPublisher, client: TestClient, clock: Clock) -> None:
        await publisher.publish(b"x")
        assert (await client.get(path)).status == 404

    published(talk)


def test_an_image_expires_and_makes_room():
    async def talk(publisher: BlobPublisher, client: TestClient, clock: Clock) -> None:
        address = path_of(await publisher.publish(b"x" * 900))
        clock.now = 59.9
        assert (await client.get(address)).status == 200
        with pytest.raises(SearchFailure, match="too many images") as caught:
            await publisher.publish(b"y" * 200)
        assert (caught.value.code, caught.value.passing) == ("overloaded", True)
        clock.now = 60.0
        assert (await client.get(address)).status == 404
        assert (await client.get(path_of(await publisher.publish(b"y" * 1000)))).status == 200

    published(talk)
