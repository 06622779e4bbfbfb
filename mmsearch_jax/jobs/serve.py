"""`mmsearch serve`: loads the policy, compiles everything, then answers until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import ml_collections
import numpy as np
import tqdm

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.http_serving import is_loopback, serve_app
from mmsearch_jax.jobs import parts as stages
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.serving.app import create_app
from mmsearch_jax.serving.service import Service, ServingLimits


def serve(config: ml_collections.ConfigDict, host: str, port: int, port_file: Path | None = None) -> None:
    """Serves the config's policy; returns after SIGINT or SIGTERM. Prints the address on one line once it can be asked.

    Args:
      port: 0 takes a free one.
      port_file: where to write the port's number, for whoever started the process.

    Raises:
      CheckpointError: no policy there.
      ConfigError: the token's variable is empty.
      ToolUnavailable: nothing answers at `tools.url`.
      PortInUse: the port is taken.
    """
    settings = config.serve
    token = os.environ.get(settings.token_env, "") if settings.token_env else ""
    if settings.token_env and not token:
        raise ConfigError(f"serve.token_env names {settings.token_env}, which is not set: export it")
    if not token and not is_loopback(host):
        print(
            f"warning: {host} can be reached from other machines, and no token is asked for. Set --config.serve.token_env, "
            "or keep to 127.0.0.1",
            file=sys.stderr,
        )
    tools = None
    if config.tools.url:
        asyncio.run(stages.check_ready(stages.tool_client(config, config.tools.url)))
        tools = stages.tool_client(config, config.tools.url)
    policy = stages.policy_of(config, np.dtype(config.dtype))
    engine, name = stages.make_engine(config, policy), policy.folder.resolve().name
    # The engine has weights of its own.
    del policy
    with tqdm.tqdm(desc="compiling", unit="program") as bar:
        engine.warm_up(bar.update)
    limits = ServingLimits(
        settings.max_waiting, settings.max_body_mib << 20, settings.fetch_images, settings.system_prompt
    )
    asyncio.run(_serve(engine, settings.model or name, config, tools, limits, token, (host, port, port_file)))


async def _serve(
    engine: Engine,
    model: str,
    config: ml_collections.ConfigDict,
    tools: ToolClient | None,
    limits: ServingLimits,
    token: str,
    place: tuple[str, int, Path | None],
) -> None:
    service = Service(engine, model, stages.episode_config(config), tools, limits)
    stop = asyncio.Event()
    work = asyncio.create_task(service.run())
    # A broken engine ends the server: whoever supervises it can then start it again.
    work.add_done_callback(lambda _: stop.set())
    try:
        await serve_app(create_app(service, token), *place, stop=stop, handler_cancellation=True)
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        if tools is not None:
            await tools.close()
