"""`python -m tools_server --corpus DIR`: serves a corpus until interrupted."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mmsearch_jax.errors import MMSearchError
from tools_server.serve import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server; returns the exit code (2: something the user must mend)."""
    parser = argparse.ArgumentParser(
        prog="python -m tools_server",
        description="Serves text search, image search and grounding over one corpus; prints its address.",
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder with pages.jsonl, images.jsonl and the pictures"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default 0: a free one)")
    parser.add_argument("--port-file", type=Path, help="file to write the bound port's number to")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port is {options.port}, must be 0 to 65535")
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING)
    try:
        serve(options.corpus, options.host, options.port, options.port_file)
    except (MMSearchError, OSError) as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
