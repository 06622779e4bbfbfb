"""The device mesh: one shape of five axes for one chip, a box of GPUs, a pod or several of them.

Axes: `dcn` (slices, each with a replica of the weights), `data` (replicas within a slice), `fsdp` (weights and batch split),
`tensor` (heads, MLP and vocabulary split), `sequence` (tokens split). Only gradients cross `dcn`, whose links are the slow
ones between slices or between machines.
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

AXES = ("dcn", "data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("dcn", "data", "fsdp")
"""What the rows of a batch are split over."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Size of each axis; one of them may be -1: all devices that the others leave."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    sequence: int = 1
    dcn: int = dataclasses.field(default=1, kw_only=True)


def make_mesh(config: MeshConfig = MeshConfig(), devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices (of all hosts), neighbours in the innermost axes; `dcn` runs over whole slices.

    A slice is what `slice_index` says; where devices have none (CPU), the processes are divided into slices in their order.

    Raises:
      ConfigError: the sizes do not make up the number of devices, or `dcn` not the slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, len(devices))
    kind = devices[0].platform
    if kind == "cpu":
        return Mesh(np.asarray(devices).reshape(sizes), AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    # On GPUs a slice is a machine, which fsdp may well reach beyond; between TPU slices it would crawl.
    if slices != config.dcn and (kind == "tpu" or config.dcn > 1):
        raise ConfigError(f"mesh.dcn is {config.dcn}, but the devices are in {slices} slices: set it to {slices}")
    if config.dcn > 1:
        per_slice, over_slices = (1, *sizes[1:]), (sizes[0], 1, 1, 1, 1)
        return Mesh(mesh_utils.create_hybrid_device_mesh(per_slice, over_slices, devices), AXES)
    # On real chips the order matters: it decides which axis runs over which links. The compiler spreads the shardings, as
    # with `Mesh`; by default `make_mesh` would have every operation say its own.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def mesh_sizes(config: MeshConfig, num_devices: int) -> tuple[int, int, int, int, int]:
    """The five sizes, as in `AXES`, with -1 filled in.

    Raises:
      ConfigError: they do not make up the number of devices.
    """
    sizes = [config.dcn, config.data, config.fsdp, config.tensor, config.sequence]
    shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ConfigError(f"mesh {shown}: sizes are at least 1, and one of them may be -1 (what is left)")
    if config.dcn < 1:
        raise ConfigError(f"mesh {shown}: dcn is the number of slices, which is not left to be found")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if num_devices % fixed:
            raise ConfigError(f"mesh {shown}: {num_devices} devices cannot be divided by {fixed}")
        sizes[sizes.index(-1)] = num_devices // fixed
    elif fixed != num_devices:
        raise ConfigError(f"mesh {shown} needs {fixed} devices, there are {num_devices}: set one size to -1")
    dcn, data, fsdp, tensor, sequence = sizes
    return dcn, data, fsdp, tensor, sequence
