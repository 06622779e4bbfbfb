"""The server's command-line arguments, the same for `python -m tools_server` and `mmsearch serve-tools`.

Settings and server are imported only when they are needed, so that `mmsearch --help` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsearch_jax.core.config_files import Loaded
    from tools_server.settings.server import ServerSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`, `--corpus`, `--host`, `--port`, `--print-config`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="config file (bundled ones: configs/tools/)")
    parser.add_argument(
        "--corpus",
        type=Path,
        help="folder with pages.jsonl and images.jsonl, or index (mmsearch index), for the backend 'local'",
    )
    parser.add_argument("--host", help="address to listen on (default: the config's, 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the config's, 8765; 0: a free one)")
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting with its value, source and meaning, and exit"
    )


def config_of(options: argparse.Namespace, overrides: Sequence[str]) -> Loaded[ServerSettings]:
    """The settings that the arguments describe. `--corpus`, `--host` and `--port` win over the file and the overrides.

    Raises:
      ConfigError: no such file, or an override that cannot be read.
      SettingError: an unknown setting, or a value that is not sound.
    """
    from mmsearch_jax.core.config_files import load
    from tools_server.settings.server import ServerSettings

    return load(ServerSettings, options.config, [*overrides, *arguments_of(options)])


def arguments_of(options: argparse.Namespace) -> list[str]:
    """`--corpus`, `--host` and `--port` as overrides of settings."""
    from mmsearch_jax.core.config_files import PREFIX

    given = {name: getattr(options, name) for name in ("corpus", "host", "port")}
    return [f"{PREFIX}{name}={value}" for name, value in given.items() if value is not None]


def run(options: argparse.Namespace, overrides: Sequence[str], port_file: Path | None = None) -> None:
    """Serves until SIGINT or SIGTERM, or prints the settings and returns.

    Args:
      port_file: where to write the port's number.

    Raises:
      MMSearchError: as `config_of` and `serve.serve`.
    """
    loaded = config_of(options, overrides)
    if options.print_config:
        for line in loaded.lines():
            print(line)
        return
    from tools_server.run_server import serve

    serve(loaded.settings, port_file)
