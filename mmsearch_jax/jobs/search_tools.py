"""The search server of a job: the one that the settings name, or one started with the mini-world's corpus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsearch_jax.core.config_files import secret
from mmsearch_jax.jobs.search_server import start_server
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.rollout import ToolsConfig

_READY_S = 5.0


@contextmanager
def search_server(tools: ToolsConfig, world: Path) -> Iterator[str]:
    """The address of the search server for the block: that of the settings, or of a server started with the world's corpus.

    Raises:
      ToolUnavailable: nothing answers at the settings' address (checked before anything slow starts).
    """
    if tools.url:
        asyncio.run(check_ready(tool_client(tools)))
        yield tools.url
        return
    with start_server(world / "corpus") as server:
        yield server.url


async def check_ready(client: ToolClient) -> None:
    """Waits briefly until the search server is ready, and closes the client.

    Raises:
      ToolUnavailable: the server is not ready.
    """
    try:
        await client.wait_ready(_READY_S)
    finally:
        await client.close()


def tool_client(tools: ToolsConfig, url: str = "") -> ToolClient:
    """A client of the search server at `url`, by default the settings'.

    Raises:
      ConfigError: `tools.token_env` names a variable that is not set.
    """
    token = secret(tools.token_env, "tools.token_env")
    return ToolClient(url or tools.url, tools.deadline_s, max_concurrency=tools.max_concurrency, token=token)
