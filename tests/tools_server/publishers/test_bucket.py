"""Images in a bucket of a local server that checks every signature."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from mmsearch_jax.core.errors import ConfigError
from tests.tools_server.publishers.fake_s3 import KEY_ID, REGION, SECRET, FakeS3
from tools_server.failures import SearchFailure
from tools_server.publishers.bucket import BucketPublisher


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def with_bucket(talk: Callable[[BucketPublisher, FakeS3], Awaitable[None]]) -> None:
    async def go() -> None:
        async with FakeS3() as server:
            await talk(BucketPublisher("s3://pictures/crops", 60.0, server.url, REGION), server)

    asyncio.run(go())


async def fetched(address: str) -> tuple[int, bytes, str]:
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        return response.status, await response.read(), response.content_type


def test_an_image_arrives_signed_and_is_fetched_by_its_address():
    async def talk(publisher: BucketPublisher, server: FakeS3) -> None:
        address = await publisher.publish(b"jpeg")
        ((path, kept),) = server.objects.items()
        assert kept == (b"jpeg", "image/jpeg")
        assert (
            path.startswith("/pictures/crops/")
            and path.endswith(".jpg")
            and len(path) == len("/pictures/crops/.jpg") + 32
        )
        assert (server.requests[0].method, server.refused) == ("PUT", 0)
        assert await fetched(address) == (200, b"jpeg", "image/jpeg")
        assert SECRET not in address

    with_bucket(talk)


def test_an_address_that_was_changed_or_has_expired_opens_nothing():
    async def talk(publisher: BucketPublisher, server: FakeS3) -> None:
        address = await publisher.publish(b"jpeg")
        assert "X-Amz-Expires=60" in address
        assert (await fetched(address.replace("X-Amz-Expires=60", "X-Amz-Expires=999999")))[0] == 403
        assert (await fetched(address[:-1] + ("0" if address[-1] != "0" else "1")))[0] == 403
        server.late_s = 61.0
        assert (await fetched(address))[0] == 403

    with_bucket(talk)


def test_a_refusal_is_a_failure_that_names_no_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")

    async def talk(publisher: BucketPublisher, server: FakeS3) -> None:
        with pytest.raises(SearchFailure, match="could not be put into the bucket") as caught:
            await publisher.publish(b"jpeg")
        assert (caught.value.code, caught.value.passing) == ("upstream_error", True)
        assert "another-secret" not in caught.value.message and KEY_ID not in caught.value.message
        assert (server.objects, server.refused) == ({}, 1)

    with_bucket(talk)


def test_a_bucket_that_cannot_be_named_is_said():
    with pytest.raises(ConfigError, match="publisher.bucket_url 's3://' cannot be used"):
        BucketPublisher("s3://", 60.0)
