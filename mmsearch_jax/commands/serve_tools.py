"""`mmsearch serve-tools`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.errors import ConfigError
from tools_server.options import add_arguments


def _check_arguments(options: argparse.Namespace) -> None:
    if options.corpus and Path(options.corpus).is_file():
        raise ConfigError(f"--corpus {options.corpus} is a file: give the directory with pages.jsonl or an index")


def _run(options: argparse.Namespace) -> None:
    from tools_server.options import run

    run(options, options.overrides)


COMMAND = Command(
    "serve-tools",
    "Serves text search, image search and grounding: over the web, or over a corpus on this machine.\n"
    "It receives only pixels and strings, loads no JAX, and runs until it is interrupted.",
    _run,
    (
        "mmsearch serve-tools --corpus runs/quickstart/worlds/real/corpus",
        "mmsearch eval --config.tools.url=http://127.0.0.1:8765      (in another terminal)",
    ),
    add_arguments,
    inputs=("corpus",),
    check_arguments=_check_arguments,
)
