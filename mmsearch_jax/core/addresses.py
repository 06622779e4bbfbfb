"""Which paths are addresses of buckets, and which of them commands can write to."""

from __future__ import annotations

import re
from pathlib import Path

from mmsearch_jax.core.errors import ConfigError

WRITABLE: tuple[str, ...] = ()
"""Schemes of the addresses that may be work directories."""
# pathlib turns "gs://bucket" into "gs:/bucket".
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/")


def scheme(path: str | Path) -> str:
    """The scheme of an address such as "gs://bucket/run"; "" for a path in the file system."""
    found = _ADDRESS.match(str(path))
    return found.group(1) if found else ""


def check_workdir(path: str | Path) -> None:
    """Checks that a command can write to a work directory with this name.

    Raises:
      ConfigError: it is an address of another scheme than those in `WRITABLE`.
    """
    if (of := scheme(path)) and of not in WRITABLE:
        # pathlib would treat a bucket's address as a local directory, which the user would notice only after the run.
        raise ConfigError(
            f"--workdir {path}: a bucket is not a directory. Mount it (docs/launch.md, Buckets) and give its mount"
        )
