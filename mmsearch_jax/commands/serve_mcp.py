"""`mmsearch serve-mcp`: the arguments of the MCP server, which is imported only when it is started."""

from __future__ import annotations

import argparse
import importlib.util

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.config_files import secret
from mmsearch_jax.core.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--tools-url`, `--token-env`, `--deadline`, `--http`, `--port`."""
    parser.add_argument(
        "--tools-url",
        default="http://127.0.0.1:8765",
        metavar="URL",
        help="address of the tools server; several are separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--token-env", default="", metavar="NAME", help="environment variable with the tools server's token"
    )
    parser.add_argument(
        "--deadline", type=float, default=30.0, metavar="S", help="seconds for one call (default: %(default)g)"
    )
    parser.add_argument("--http", action="store_true", help="serve streamable HTTP on this machine instead of stdio")
    parser.add_argument("--port", type=int, default=8766, help="with --http (default: %(default)s; 0: a free one)")


def check_arguments(options: argparse.Namespace) -> None:
    """Raises a `ConfigError` if an argument is invalid, or the package is missing."""
    if importlib.util.find_spec("mcp") is None:
        raise ConfigError("mmsearch serve-mcp needs the package mcp: pip install 'mmsearch-jax[mcp]'")
    for url in options.tools_url.split(","):
        if not url.strip().startswith(("http://", "https://")):
            raise ConfigError(f"--tools-url is '{url.strip()}': give an address such as http://127.0.0.1:8765")
    secret(options.token_env, "--token-env")
    if not options.deadline > 0 or not 0 <= options.port <= 65535:
        raise ConfigError("--deadline must be above 0, --port 0 to 65535")


def run(options: argparse.Namespace) -> None:
    """Serves until the host closes the connection, or until a signal.

    Raises:
      ConfigError: an argument is invalid, or the package is missing.
      PortInUse: the port is in use.
    """
    check_arguments(options)
    token = secret(options.token_env, "--token-env")
    from mmsearch_jax.rollout.tool_client import ToolClient
    from mmsearch_jax.serving.mcp import serve_http, serve_stdio

    client = ToolClient(options.tools_url, options.deadline, token=token)
    if options.http:
        serve_http(client, options.port)
    else:
        serve_stdio(client)


COMMAND = Command(
    "serve-mcp",
    "Offers text search, image search and grounding to agents over the Model Context Protocol.\n"
    "A thin adapter over a running tools server (mmsearch serve-tools); needs the extra 'mcp'.",
    run,
    (
        "mmsearch serve-mcp --tools-url http://127.0.0.1:8765      (started by an agent's host, over stdio)",
        "mmsearch serve-mcp --http --port 8766",
    ),
    add_arguments,
    check_arguments=check_arguments,
)
