"""Serves what the settings describe."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mmsearch_jax.core.addresses import is_loopback
from mmsearch_jax.core.http_serving import serve_app
from tools_server.assembly import Assembly, assemble
from tools_server.http_app import create_app
from tools_server.settings.server import ServerSettings


def serve(settings: ServerSettings, port_file: Path | None = None) -> None:
    """Serves until SIGINT or SIGTERM. Prints the address on one line once the server takes requests.

    Args:
      port_file: where to write the port's number, for the process that started this one.

    Raises:
      ConfigError: a server with these settings cannot start here.
      DataError: the corpus or the cache is missing or damaged.
      PortInUse: the port is taken.
    """
    assembly = assemble(settings)
    if not is_loopback(settings.host) and not assembly.token:
        print(
            f"warning: {settings.host} can be reached from other machines and the server asks for no token: anybody there can "
            "search at your cost. Set --config.token_env, or listen on 127.0.0.1",
            file=sys.stderr,
        )
    asyncio.run(_serve(assembly, settings.host, settings.port, port_file))


async def _serve(assembly: Assembly, host: str, port: int, port_file: Path | None) -> None:
    app = create_app(assembly.load, assembly.limits, assembly.token, assembly.add_routes)
    await serve_app(app, host, port, port_file)
