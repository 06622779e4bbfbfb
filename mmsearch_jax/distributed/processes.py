"""Several processes of one run: starting together, agreeing on numbers, and exchanging small records.

With a single process these functions cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmsearch_jax.core.errors import ConfigError, ProcessFailed
from mmsearch_jax.core.staging import pull_all, push_all

_PIECE_BYTES = 128 * 2**20


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    from_environment: bool = False,
    heartbeat_timeout_s: int = 60,
) -> None:
    """Joins this process to the others of its run; must be called before any other use of JAX.

    Args:
      coordinator: "host:port" of process 0; requires the number of processes and the index of this one.
      from_environment: take all three from the variables of TPU pods, Slurm, Open MPI and GKE (`jax.distributed.initialize`).
      heartbeat_timeout_s: when a process has been silent for this time, all others stop.

    Raises:
      ConfigError: some of the three are missing, or the other processes cannot be found or reached.
    """
    given = [coordinator, num_processes, process_id]
    if not from_environment and all(value is None for value in given):
        return
    if not from_environment and any(value is None for value in given):
        raise ConfigError("several processes need --coordinator, --num-processes and --process-id, all three")
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=heartbeat_timeout_s
        )
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"cannot join the other processes ({first}): check that --coordinator is reachable; give it if the environment "
            "does not define it (docs/training.md)"
        ) from error


@contextmanager
def first_process_first() -> Iterator[None]:
    """Runs the block on process 0 first and then on the others, which can read what it wrote to a shared folder.

    Raises:
      ProcessFailed: on the other processes, if the block raised on process 0.
    """
    first = jax.process_index() == 0
    if not first and largest_of_all(0):
        raise ProcessFailed("process 0 failed in the work that it does first for all processes: see its output")
    if not first:
        pull_all()
    try:
        yield
        if first and jax.process_count() > 1:
            push_all()
    except Exception:
        if first:
            largest_of_all(1)
        raise
    if first:
        largest_of_all(0)


def largest_of_all(value: int) -> int:
    """The largest of all processes' values (a collective: every process must call it)."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def sums_of_all(values: dict[str, float]) -> dict[str, float]:
    """The sums over all processes, which must use the same names (a collective: every process must call it)."""
    if jax.process_count() == 1:
        return values
    gathered = multihost_utils.process_allgather(np.asarray(list(values.values()), np.float64))
    return dict(zip(values, map(float, gathered.sum(axis=0)), strict=True))


def records_of_all(record: Any) -> list[Any]:
    """Every process's JSON value, by process (a collective: every process must call it)."""
    if jax.process_count() == 1:
        return [record]
    return [json.loads(encoded) for encoded in bytes_of_all(json.dumps(record).encode())]


def bytes_of_all(own: bytes) -> list[bytes]:
    """Every process's bytes, by process (a collective: every process must call it).

    They pass through the devices' memory in pieces of at most `_PIECE_BYTES` of all processes together.
    """
    processes = jax.process_count()
    if processes == 1:
        return [own]
    lengths = multihost_utils.process_allgather(np.int64(len(own)).reshape(1)).reshape(-1)
    size = max(1, _PIECE_BYTES // processes)
    found = [bytearray() for _ in range(processes)]
    for begin in range(0, int(lengths.max()), size):
        piece = np.zeros(min(size, int(lengths.max()) - begin), np.uint8)
        mine = np.frombuffer(own[begin : begin + size], np.uint8)
        piece[: len(mine)] = mine
        for whole, part in zip(found, multihost_utils.process_allgather(piece), strict=True):
            whole += part.tobytes()
    return [bytes(whole[:length]) for whole, length in zip(found, lengths, strict=True)]
