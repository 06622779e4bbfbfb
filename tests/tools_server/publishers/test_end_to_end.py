"""Image providers that need an address: they fetch the published image and get the crop's bytes."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import ml_collections
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, unused_port
from PIL import Image

from benchmarks.stand_ins.upstreams import REPLIES
from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import ConfigError
from tests.tools_server.fetch.site import Site
from tests.tools_server.publishers.fake_s3 import KEY_ID, REGION, SECRET, FakeS3
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import encode, scene
from tools_server.assembly import assemble
from tools_server.http_app import create_app

LENSES = ("serper_lens", "serpapi_lens")


class Lens(Site):
    """A provider that fetches the image at the given address, then answers as in its documentation."""

    def __init__(self, name: str):
        super().__init__(self._search)
        self._name = name
        self.fetched: list[tuple[str, str, bytes]] = []

    async def _search(self, request: web.Request) -> web.Response:
        address = (await request.json())["url"] if request.can_read_body else request.query["url"]
        async with aiohttp.ClientSession() as session, session.get(address) as response:
            self.fetched.append((address, response.content_type, await response.read()))
        return web.Response(text=json.dumps(REPLIES[self._name]), content_type="application/json")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch):
    for name, value in (
        ("SERPER_API_KEY", "k"),
        ("SERPAPI_API_KEY", "k"),
        ("TOOLS_TOKEN", "t0ken"),
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ):
        monkeypatch.setenv(name, value)


def config_with(tmp_path: Path, name: str, lens: Lens, **publisher: Any) -> ml_collections.ConfigDict:
    config = default_config()
    config.cache.path, config.cache.mode, config.token_env = str(tmp_path / "cache.sqlite"), "live", "TOOLS_TOKEN"
    config.text.backends, config.image.backends = (), (name,)
    config.backends[name].update({"url": lens.url, "calls_per_s": 1000.0})
    config.publisher.update(publisher)
    return config


async def search_crop(config: ml_collections.ConfigDict, server: TestServer) -> Any:
    async with TestClient(server) as client:
        body = {"image_base64": encode(scene("Flag of Velmora", "Flag of Harland")[0]), "box": [20, 90, 200, 225]}
        headers = {"Authorization": "Bearer t0ken"}
        response = await client.post(search_api.ROUTE_IMAGE_SEARCH, json=body, headers=headers)
        return await response.json()


def check(reply: Any, lens: Lens, name: str) -> str:
    assert (reply["backend"], reply["results"][0]["title"]) == (name, "Velmora")
    ((address, kind, data),) = lens.fetched
    assert kind == "image/jpeg"
    with Image.open(io.BytesIO(data)) as crop:
        assert (crop.size, crop.format) == ((180, 135), "JPEG")
    return address


@pytest.mark.parametrize("name", LENSES)
def test_a_crop_goes_out_by_the_servers_own_route_which_asks_for_no_token(name: str, tmp_path: Path):
    async def go() -> None:
        async with Lens(name) as lens:
            # The address is part of the config, as in production, so the port must be known first.
            port = unused_port()
            config = config_with(tmp_path, name, lens, kind="blobs", public_url=f"http://127.0.0.1:{port}")
            assembly = assemble(settings_of(config))
            app = create_app(assembly.load, assembly.limits, assembly.token, assembly.add_routes)
            server = TestServer(app, host="127.0.0.1", port=port)
            assert f":{port}/blobs/" in check(await search_crop(config, server), lens, name)

    asyncio.run(go())


@pytest.mark.parametrize("name", LENSES)
def test_a_crop_goes_out_by_a_bucket(name: str, tmp_path: Path):
    async def go() -> None:
        async with Lens(name) as lens, FakeS3() as s3:
            options = {"bucket_url": "s3://pictures", "endpoint_url": s3.url, "region": REGION}
            config = config_with(tmp_path, name, lens, kind="bucket", **options)
            assembly = assemble(settings_of(config))
            server = TestServer(create_app(assembly.load, assembly.limits, assembly.token, assembly.add_routes))
            assert "X-Amz-Signature=" in check(await search_crop(config, server), lens, name)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "magic"}, "publisher.kind is 'magic': use none, blobs or bucket"),
        ({"kind": "blobs"}, "publisher.public_url is .*: give the address"),
        ({"kind": "blobs", "public_url": "images.example"}, "publisher.public_url is .*: give the address"),
        ({"kind": "bucket", "bucket_url": "pictures"}, "publisher.bucket_url is .*: give s3://BUCKET/PREFIX"),
        ({"kind": "blobs", "public_url": "http://x", "ttl_s": 0.0}, "publisher.ttl_s is 0.0: must be above 0"),
    ],
)
def test_a_wrong_config_is_said(changes: dict[str, Any], words: str, tmp_path: Path):
    config = default_config()
    config.corpus = str(tmp_path)
    config.publisher.update(changes)
    with pytest.raises(ConfigError, match=words):
        assemble(settings_of(config))
