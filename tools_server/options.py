"""The server's command-line arguments, the same for `python -m tools_server` and `mmsearch serve-tools`.

The server itself is imported only when it is started: `mmsearch --help` must not wait for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch_jax.core.errors import ConfigError

if TYPE_CHECKING:
    import ml_collections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`, `--corpus`, `--host`, `--port`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="config file (bundled ones: configs/tools/)")
    parser.add_argument(
        "--corpus",
        type=Path,
        help="folder with pages.jsonl and images.jsonl, or index (mmsearch index), for the backend 'local'",
    )
    parser.add_argument("--host", help="address to listen on (default: the config's, 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the config's, 8765; 0: a free one)")


def config_of(options: argparse.Namespace, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """The config that the arguments describe; arguments win over the file.

    Raises:
      ConfigError: no such file, an unknown key, a value out of range.
    """
    from mmsearch_jax.core.config_files import load_config, set_overrides
    from tools_server.assembly import default_config

    config = load_config(options.config) if options.config is not None else default_config()
    set_overrides(config, overrides)
    with config.unlocked():
        if options.corpus is not None:
            config.corpus = str(options.corpus)
        if options.host is not None:
            config.host = options.host
        if options.port is not None:
            config.port = options.port
    if not 0 <= config.port <= 65535:
        raise ConfigError(f"the port is {config.port}, must be 0 to 65535")
    return config
