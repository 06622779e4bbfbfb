"""Serves what a config describes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import ml_collections

from mmsearch_jax.core.http_serving import is_loopback, serve_app
from tools_server.app import create_app
from tools_server.assembly import Assembly, assemble


def serve(config: ml_collections.ConfigDict, port_file: Path | None = None) -> None:
    """Serves what the config describes; returns after SIGINT or SIGTERM. Prints the address on one line once it can be asked.

    Args:
      config: see `tools_server.assembly.default_config`; port 0 takes a free one.
      port_file: where to write the port's number, for whoever started the process.

    Raises:
      ConfigError: the config is wrong.
      DataError: the corpus or the cache is missing or damaged.
      PortInUse: the port is taken.
    """
    assembly = assemble(config)
    if not is_loopback(config.host) and not assembly.token:
        print(
            f"warning: {config.host} can be reached from other machines, and no token is asked for: anybody there can "
            "search at your cost. Set config.token_env, or keep to 127.0.0.1",
            file=sys.stderr,
        )
    asyncio.run(_serve(assembly, config.host, config.port, port_file))


async def _serve(assembly: Assembly, host: str, port: int, port_file: Path | None) -> None:
    app = create_app(assembly.load, assembly.limits, assembly.token, assembly.add_routes)
    await serve_app(app, host, port, port_file)
