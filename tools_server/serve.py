"""Runs the application on a socket until a signal asks it to stop; requests under way are answered first."""

from __future__ import annotations

import asyncio
import errno
import signal
from pathlib import Path

from aiohttp import web

from mmsearch_jax.errors import PortInUse
from tools_server.app import Limits, SearchTools, create_app

SHUTDOWN_S = 5.0
"""How long requests under way may still take after the signal."""


def serve(corpus: Path, host: str = "127.0.0.1", port: int = 0, port_file: Path | None = None) -> None:
    """Serves a corpus; returns after SIGINT or SIGTERM. Prints the address on one line once it can be asked.

    Args:
      corpus: folder with `pages.jsonl`, `images.jsonl` and the pictures.
      port: 0 takes a free one.
      port_file: where to write the port's number, for whoever started the process.

    Raises:
      DataError: the corpus is missing or damaged.
      PortInUse: the port is taken.
    """
    asyncio.run(_serve(corpus, host, port, port_file))


async def _serve(corpus: Path, host: str, port: int, port_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    limits = Limits()
    runner = web.AppRunner(
        create_app(lambda: SearchTools(corpus, limits), limits), access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise _listen_error(error, host, port) from error
        bound = runner.addresses[0][1]
        if port_file is not None:
            # Written aside and renamed, so that a reader never sees half a number.
            draft = port_file.with_name(port_file.name + ".part")
            draft.write_text(f"{bound}\n", encoding="ascii")
            draft.rename(port_file)
        print(f"http://{f'[{host}]' if ':' in host else host}:{bound}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def _listen_error(error: OSError, host: str, port: int) -> PortInUse:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"port {port} on {host} is in use: choose another with --port, or 0 for a free one")
    return PortInUse(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port")
