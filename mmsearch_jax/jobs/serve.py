"""`mmsearch serve`: loads the policy, compiles everything, and answers requests until a signal arrives."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import numpy as np
import tqdm

from mmsearch_jax.core.addresses import is_loopback
from mmsearch_jax.core.config_files import secret
from mmsearch_jax.core.http_serving import serve_app
from mmsearch_jax.jobs.policies import make_engine, named_policy
from mmsearch_jax.jobs.search_tools import check_ready, tool_client
from mmsearch_jax.serving.app import create_app
from mmsearch_jax.serving.service import Service
from mmsearch_jax.settings.commands import ServingSettings


def run_serve(settings: ServingSettings, host: str, port: int, port_file: Path | None = None) -> None:
    """Serves the policy; returns after SIGINT or SIGTERM. Prints the address on one line once it accepts requests.

    Args:
      port: 0 chooses a free port.
      port_file: file for the port's number, for the process that started this one.

    Raises:
      CheckpointError: there is no policy.
      ConfigError: the token's variable is empty.
      ToolUnavailable: nothing answers at `tools.url`.
      PortInUse: the port is in use.
    """
    token = secret(settings.serve.token_env, "serve.token_env")
    if not token and not is_loopback(host):
        print(
            f"warning: {host} can be reached from other machines, and no token is required. Set --config.serve.token_env, "
            "or use 127.0.0.1",
            file=sys.stderr,
        )
    if settings.tools.url:
        asyncio.run(check_ready(tool_client(settings.tools)))
    policy = named_policy(settings, np.dtype(settings.dtype))
    engine, name = make_engine(settings, policy), policy.folder.resolve().name
    # The engine has its own weights.
    del policy
    with tqdm.tqdm(desc="compiling", unit="program") as bar:
        engine.warm_up(bar.update)
    tools = tool_client(settings.tools) if settings.tools.url else None
    service = Service(engine, settings.serve.model or name, settings.episode, tools, settings.serve)
    asyncio.run(_serve(service, token, (host, port, port_file)))


async def _serve(service: Service, token: str, place: tuple[str, int, Path | None]) -> None:
    stop = asyncio.Event()
    work = asyncio.create_task(service.run())
    # If the engine fails, the server ends, so that a supervisor can restart it.
    work.add_done_callback(lambda _: stop.set())
    try:
        await serve_app(create_app(service, token), *place, stop=stop, handler_cancellation=True)
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await service.close()
