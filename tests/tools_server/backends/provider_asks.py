"""Asking one provider over HTTP, in the place of which a stand-in answers."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from PIL import Image

from benchmarks.stand_ins.upstreams import Upstream
from tools_server.backends.providers import TEXT
from tools_server.backends.upstream import Sessions
from tools_server.backends.web import WebImage, WebText
from tools_server.failures import SearchFailure
from tools_server.settings.sources import WebBackendSettings

KEY = "k3y-that-nobody-may-read"
"""The value of TEST_KEY, which `conftest.py` sets."""


class Publisher:
    async def publish(self, data: bytes) -> str:
        assert Image.open(io.BytesIO(data)).size == (30, 20)
        return "https://images.example/one.jpg"


def backend(name: str, url: str, sessions: Sessions, publisher: Any = None) -> Any:
    settings = WebBackendSettings(url=url, key_env="TEST_KEY", cost_usd=0.001)
    if name in TEXT:
        return WebText(name, sessions, settings)
    return WebImage(name, sessions, settings, publisher or Publisher())


def ask(name: str, query: Any = "capital of Velmora", top_k: int = 5, **behaviour: Any) -> tuple[Any, Upstream]:
    """The backend's results (or its failure) and the upstream that was asked."""

    async def go() -> tuple[Any, Upstream]:
        sessions = Sessions()
        try:
            async with Upstream(name, **behaviour) as upstream:
                try:
                    return await backend(name, upstream.url, sessions).search(query, top_k), upstream
                except SearchFailure as failure:
                    return failure, upstream
        finally:
            await sessions.close()

    return asyncio.run(go())
