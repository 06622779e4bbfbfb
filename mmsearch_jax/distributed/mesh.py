"""The device mesh: the same five axes for one chip, one GPU machine, a TPU pod or several of them.

Axes: `dcn` (slices, each with a replica of the weights), `data` (replicas within a slice), `fsdp` (weights and batch split),
`tensor` (heads, MLP and vocabulary split), `sequence` (tokens split). Only gradients cross `dcn`, the slow links between
slices or machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmsearch_jax.distributed.layout import AXES, BATCH_AXES, check_slices, inner_sizes, mesh_sizes
from mmsearch_jax.settings.policy import MeshConfig

__all__ = ["AXES", "BATCH_AXES", "make_mesh", "mesh_sizes"]


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None, *, whole_rows: bool = True) -> Mesh:
    """The mesh over all devices of all hosts, with the devices of a process and the processes of a slice adjacent.

    In SFT each process supplies the rows of the batch that its own devices hold, so each row must belong to one process
    (`whole_rows`). A layout that follows only the torus's links would break that. Within a process the devices keep the order
    of the chips.

    Raises:
      ConfigError: the sizes do not make up the number of devices, `dcn` is not the number of slices, or a row would
        belong to two processes and must not.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, len(devices))
    by_process: dict[tuple[int, int], list[Any]] = {}
    for device in devices:
        by_process.setdefault((getattr(device, "slice_index", 0) or 0, device.process_index), []).append(device)
    check_slices(config, len({slice_index for slice_index, _ in by_process}), is_tpu=devices[0].platform == "tpu")
    inner = inner_sizes(sizes, len(devices) // len(by_process), whole_rows=whole_rows)
    outer = tuple(size // own for size, own in zip(sizes, inner, strict=True))
    # Every process has the same order of places, plain rows of its chips. For groups of any other form (such as a snake through
    # a host) libtpu finds no route between several v5e hosts and kills the process that compiles.
    blocks = [sorted(by_process[key], key=_place) for key in sorted(by_process)]
    # [outer..., inner...] -> each axis's outer part followed by its inner part.
    grid = np.array(blocks).reshape(*outer, *inner)
    axes = [axis for pair in zip(range(len(AXES)), range(len(AXES), 2 * len(AXES)), strict=True) for axis in pair]
    # The compiler propagates the shardings (`AxisType.Auto`); otherwise every operation would have to state its own.
    return Mesh(grid.transpose(axes).reshape(sizes), AXES)


def _place(device: Any) -> tuple[int, ...]:
    # TPU chips have coordinates in their slice (the first runs fastest) and v4 and 7x also cores; other devices only a number.
    return (*reversed(getattr(device, "coords", None) or ()), getattr(device, "core_on_chip", None) or 0, device.id)
