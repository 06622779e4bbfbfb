"""`mmsearch serve`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command, SetSetting
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.commands import ServingSettings

    return ServingSettings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 chooses a free port (default: %(default)s)")
    parser.add_argument(
        "--tools-url",
        action=SetSetting,
        const="tools.url",
        metavar="URL",
        help="offer search episodes with this server (config.tools.url)",
    )


def _check_arguments(options: argparse.Namespace) -> None:
    if not 0 <= options.port < 2**16:
        raise ConfigError(f"--port {options.port}: ports are from 1 to 65535, and 0 chooses a free one")


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.jobs.serve import run_serve

    run_serve(options.settings, options.host, options.port)


COMMAND = Command(
    "serve",
    "Serves a policy to OpenAI clients: chat completions with images, streamed or whole, and search episodes.\n"
    "Prints its address once it accepts requests, and runs until it is interrupted (docs/serving.md).",
    _run,
    (
        "mmsearch serve --config.checkpoint=runs/grpo/policies/grpo",
        "mmsearch serve --config.checkpoint=runs/grpo/policies/grpo --tools-url http://127.0.0.1:8765 --port 8001",
    ),
    _add_arguments,
    _settings,
    config="serve.py",
    check_arguments=_check_arguments,
)
