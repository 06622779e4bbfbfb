"""Addresses: which paths are those of buckets, which of them commands can write to, which hosts are this machine."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from mmsearch_jax.core.buckets import is_address, normal
from mmsearch_jax.core.errors import ConfigError

# pathlib turns "gs://bucket" into "gs:/bucket".
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):(?:/|$)")


def scheme(path: str | Path) -> str:
    """The scheme of an address such as "gs://bucket/run"; "" for a path in the file system."""
    found = _ADDRESS.match(str(path))
    return found.group(1) if found else ""


def check_workdir(path: str | Path, several: bool) -> None:
    """Checks that a command can write to a work directory with this name.

    Args:
      several: whether several processes write to it.

    Raises:
      ConfigError: they cannot.
    """
    # pathlib would take another scheme for a local directory, which the user would notice only after the run.
    if scheme(path) and not is_address(path):
        raise ConfigError(f"--workdir {path}: only gs://BUCKET/FOLDER, s3://BUCKET/FOLDER and directories can be used")
    if several and scheme(path) == "s3":
        raise ConfigError(
            f"--workdir {normal(path)}: several processes need a shared directory or gs://, because Orbax writes each "
            "process's part of a checkpoint and not to s3://. Mount the bucket (docs/launch.md, Buckets)"
        )


def is_loopback(host: str) -> bool:
    """Whether the address can be reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
