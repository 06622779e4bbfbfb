"""`python -m tools_server --config FILE`, or `--corpus DIR` alone: serves until interrupted."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.errors import MMSearchError
from tools_server.options import add_arguments, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server; returns the exit code (2: an error that the user can correct)."""
    parser = Parser(
        prog="python -m tools_server",
        description="Serves text search, image search and grounding; prints its address.",
        epilog="Every setting can be given: --config.KEY=VALUE. --print-config lists them.",
    )
    add_arguments(parser)
    parser.add_argument("--port-file", type=Path, help="file to write the bound port's number to")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options, overrides = parser.parse_known_args(arguments)
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING)
    try:
        run(options, overrides, options.port_file)
    except (MMSearchError, OSError) as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
