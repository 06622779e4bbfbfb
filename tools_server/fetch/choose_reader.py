"""The page reader that the settings describe."""

from __future__ import annotations

import os
from typing import Any

from tools_server.fetch.guard import Guard
from tools_server.search_service import PageReader
from tools_server.settings.page_reading import ReaderSettings

_IN_KEY = ("kind", "num_pages", "max_chars", "max_bytes", "max_decoded_bytes", "max_redirects")
"""Settings that decide an answer, besides `allow` and `ports`."""


def make_reader(settings: ReaderSettings) -> PageReader | None:
    """The reader; None where the kind is "none". Its processes start with the first page."""
    if settings.kind == "none":
        return None
    # Imported here because a server that reads no pages does not need the packages of the extra.
    from tools_server.fetch.fetcher import Fetcher
    from tools_server.fetch.readers import MODULE_OF_WORK, JinaReader, PagesReader
    from tools_server.fetch.workers import Workers

    guard = Guard(settings.allow, settings.ports)
    fetcher = Fetcher(guard, settings, settings.user_agent)
    workers = Workers(settings.num_processes, settings.parse_timeout_s, settings.max_memory_bytes, MODULE_OF_WORK)
    if settings.kind == "pages":
        return PagesReader(fetcher, workers, settings.max_chars, settings.max_concurrency)
    jina = settings.jina
    key = os.environ[jina.key_env] if jina.key_env else ""
    return JinaReader(fetcher, workers, settings.max_chars, settings.max_concurrency, guard, jina.url, key)


def reader_identity(settings: ReaderSettings) -> dict[str, Any]:
    """What of the settings decides an answer, for the cache's keys; nothing where no page is read."""
    if settings.kind == "none":
        return {}
    values = {name: getattr(settings, name) for name in _IN_KEY}
    return {"reader": {**values, "allow": sorted(settings.allow), "ports": sorted(settings.ports)}}
