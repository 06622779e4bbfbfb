"""The device mesh: the same five axes for one chip, one GPU machine, a TPU pod or several of them.

Axes: `dcn` (slices, each with a replica of the weights), `data` (replicas within a slice), `fsdp` (weights and batch split),
`tensor` (heads, MLP and vocabulary split), `sequence` (tokens split). Only gradients cross `dcn`, the slow links between
slices or machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.settings.policy import MeshConfig

AXES = ("dcn", "data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("dcn", "data", "fsdp")
"""Mesh axes over which the rows of a batch are split."""


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices of all hosts, with the devices of a process and the processes of a slice adjacent.

    Each process supplies the rows of the batch that its own devices hold, so each row must belong to one process. A layout
    that follows only the torus's links would break that. Within a process the devices keep the order of the chips.

    Raises:
      ConfigError: the sizes do not make up the number of devices, `dcn` is not the number of slices, or a row would
        belong to two processes.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, len(devices))
    by_process: dict[tuple[int, int], list[Any]] = {}
    for device in devices:
        by_process.setdefault((getattr(device, "slice_index", 0) or 0, device.process_index), []).append(device)
    _check_slices(config, len({slice_index for slice_index, _ in by_process}), devices[0].platform)
    inner = _inner_sizes(sizes, len(devices) // len(by_process))
    outer = tuple(size // own for size, own in zip(sizes, inner, strict=True))
    if math.prod(outer[-2:]) > 1:
        raise ConfigError(
            f"mesh tensor={config.tensor} x sequence={config.sequence} splits a row over several processes, which have "
            f"{math.prod(inner)} devices each: lower them"
        )
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


def _check_slices(config: MeshConfig, slices: int, platform: str) -> None:
    # CPUs (simulated devices) have no slices. A GPU slice is a machine. fsdp may cross machines; across TPU slices it is slow.
    if slices != config.dcn and (platform == "tpu" or (slices > 1 and config.dcn > 1)):
        raise ConfigError(f"mesh.dcn is {config.dcn}, but the devices are in {slices} slices: set it to {slices}")


def _inner_sizes(sizes: Sequence[int], devices: int) -> tuple[int, ...]:
    """Size of the part of each axis within one process, filled from the innermost axis outwards."""
    inner, left = [], devices
    for size in reversed(sizes):
        inner.append(math.gcd(size, left))
        left //= inner[-1]
        if left > 1 and inner[-1] < size:
            shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
            raise ConfigError(
                f"mesh {shown}: {size} and a process's {devices} devices do not divide each other: take powers of two"
            )
    return tuple(reversed(inner))


def mesh_sizes(config: MeshConfig, num_devices: int) -> tuple[int, int, int, int, int]:
    """The five sizes in the order of `AXES`, with -1 replaced.

    Raises:
      ConfigError: they do not make up the number of devices.
    """
    sizes = [config.dcn, config.data, config.fsdp, config.tensor, config.sequence]
    shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if num_devices % fixed:
            raise ConfigError(f"mesh {shown}: {num_devices} devices cannot be divided by {fixed}")
        sizes[sizes.index(-1)] = num_devices // fixed
    elif fixed != num_devices:
        raise ConfigError(f"mesh {shown} needs {fixed} devices, there are {num_devices}: set one size to -1")
    dcn, data, fsdp, tensor, sequence = sizes
    return dcn, data, fsdp, tensor, sequence
