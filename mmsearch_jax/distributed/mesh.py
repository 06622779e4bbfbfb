"""The device mesh: one shape of four axes for one chip, a box of GPUs or a pod.

Axes: `data` (replicas of the weights), `fsdp` (weights and batch split), `tensor` (heads, MLP and vocabulary split),
`sequence` (tokens split).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from mmsearch_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor", "sequence")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Size of each axis; one of them may be -1: all devices that the others leave."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    sequence: int = 1


def make_mesh(config: MeshConfig = MeshConfig(), devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices (of all hosts), neighbours in the innermost axes.

    Raises:
      ConfigError: the sizes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, len(devices))
    if devices[0].platform == "cpu":
        return Mesh(np.asarray(devices).reshape(sizes), AXES)
    # On real chips the order matters: it decides which axis runs over which links. The compiler spreads the shardings, as
    # with `Mesh`; by default `make_mesh` would have every operation say its own.
    try:
        return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
    except NotImplementedError:
        # No axis of the mesh is made of whole dims of the slice (4 of 16, say): then an axis takes a part of a dim.
        split = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(split, AXES)


def mesh_sizes(config: MeshConfig, num_devices: int) -> tuple[int, int, int, int]:
    """The four sizes with -1 filled in.

    Raises:
      ConfigError: they do not make up the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor, config.sequence]
    shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ConfigError(f"mesh {shown}: sizes are at least 1, and one of them may be -1 (what is left)")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if num_devices % fixed:
            raise ConfigError(f"mesh {shown}: {num_devices} devices cannot be divided by {fixed}")
        sizes[sizes.index(-1)] = num_devices // fixed
    elif fixed != num_devices:
        raise ConfigError(f"mesh {shown} needs {fixed} devices, there are {num_devices}: set one size to -1")
    data, fsdp, tensor, sequence = sizes
    return data, fsdp, tensor, sequence
