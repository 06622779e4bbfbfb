"""The page reader that the config's `reader` describes."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from mmsearch_jax.core.errors import ConfigError
from tools_server.fetch.fetcher import Fetcher, FetchLimits
from tools_server.fetch.guard import PORTS, Guard
from tools_server.service import PageReader

KINDS = ("none", "pages", "jina")
_USER_AGENT = "Mozilla/5.0 (compatible; mmsearch-jax)"


def default_reader() -> dict[str, Any]:
    """The section `reader` of the config."""
    return {
        # none: results keep their snippets; pages: fetched and read here; jina: read by Jina's service.
        "kind": "none",
        # Pages of one search that are read, and how much of each.
        "num_pages": 3,
        "max_chars": 20_000,
        # Hosts, addresses and networks of your own that may be fetched from though they are not public (each may end in
        # :PORT), and the ports of public hosts.
        "allow": (),
        "ports": PORTS,
        # Pages under way at once, in all and (max_per_host) at one host.
        "max_concurrency": 32,
        **dataclasses.asdict(FetchLimits()),
        # Processes that parse, how long one page may keep one, and its memory.
        "num_processes": 2,
        "parse_timeout_s": 4.0,
        "max_memory_bytes": 2**30,
        "user_agent": _USER_AGENT,
        "jina": {"url": "https://r.jina.ai", "key_env": ""},
    }


def make_reader(own: Any) -> PageReader | None:
    """The reader; None where the kind is "none". Its processes start with the first page.

    Raises:
      ConfigError: a value that is not known or out of range, or a key that is not in the environment.
    """
    if own.kind not in KINDS:
        raise ConfigError(f"config.reader.kind is '{own.kind}', must be one of {', '.join(KINDS)}")
    if own.kind == "none":
        return None
    for name in ("num_pages", "max_chars", "max_concurrency", "max_per_host", "num_processes", "max_bytes"):
        if own[name] < 1:
            raise ConfigError(f"config.reader.{name} is {own[name]}, must be at least 1")
    try:
        # Here, so that a server without page reading does not need the extra's packages.
        from tools_server.fetch.readers import MODULE_OF_WORK, JinaReader, PagesReader
        from tools_server.fetch.workers import Workers
    except ModuleNotFoundError as error:
        raise ConfigError(f"config.reader needs the package {error.name}: pip install 'mmsearch-jax[tools]'") from error

    guard = Guard(own.allow, own.ports)
    limits = FetchLimits(**{field.name: own[field.name] for field in dataclasses.fields(FetchLimits)})
    workers = Workers(own.num_processes, own.parse_timeout_s, own.max_memory_bytes, MODULE_OF_WORK)
    fetcher = Fetcher(guard, limits, own.user_agent)
    if own.kind == "pages":
        return PagesReader(fetcher, workers, own.max_chars, own.max_concurrency)
    key = os.environ.get(own.jina.key_env, "") if own.jina.key_env else ""
    if own.jina.key_env and not key:
        raise ConfigError(
            f"config.reader.jina.key_env names the environment variable {own.jina.key_env}, which is not set"
        )
    return JinaReader(fetcher, workers, own.max_chars, own.max_concurrency, guard, own.jina.url, key)


def reader_identity(own: Any) -> dict[str, Any]:
    """What of the section decides an answer, for the cache's keys; nothing where no page is read."""
    if own.kind == "none":
        return {}
    names = ("kind", "num_pages", "max_chars", "max_bytes", "max_decoded_bytes", "max_redirects")
    return {"reader": {**{name: own[name] for name in names}, "allow": sorted(own.allow), "ports": sorted(own.ports)}}
