"""Sizes of the mesh without devices: what the axes are, how many devices they need, and what a batch must divide by.

It imports no JAX, so that a command line can be checked before anything starts. `mesh` builds the mesh of real devices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.policy import MESH_AXES, MeshConfig

AXES = MESH_AXES
BATCH_AXES = ("dcn", "data", "fsdp")
"""Mesh axes over which the rows of a batch are split."""


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


def inner_sizes(sizes: Sequence[int], devices: int, *, whole_rows: bool = True) -> tuple[int, ...]:
    """Size of the part of each axis within one process, filled from the innermost axis outwards.

    Args:
      sizes: of the axes, in the order of `AXES`.
      devices: of a process.
      whole_rows: each row of a batch must belong to one process, because that process alone makes it.

    Raises:
      ConfigError: the sizes and the devices do not divide each other, or a row would belong to two processes and must not.
    """
    inner, left = [], devices
    for size in reversed(sizes):
        inner.append(math.gcd(size, left))
        left //= inner[-1]
        if left > 1 and inner[-1] < size:
            shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
            raise ConfigError(
                f"mesh {shown}: {size} and a process's {devices} devices do not divide each other: take powers of two"
            )
    inner = inner[::-1]
    if whole_rows and inner[-2:] != list(sizes[-2:]):
        raise ConfigError(
            f"mesh tensor={sizes[-2]} x sequence={sizes[-1]} splits a row over several processes, which have "
            f"{math.prod(inner)} devices each: lower them"
        )
    return tuple(inner)


def check_slices(config: MeshConfig, slices: int, *, is_tpu: bool) -> None:
    """Checks that `dcn` is the number of slices. A GPU slice is a machine.

    Raises:
      ConfigError: it is not.
    """
    # CPUs (simulated devices) have no slices. fsdp may cross machines; across TPU slices it is slow.
    if slices != config.dcn and (is_tpu or (slices > 1 and config.dcn > 1)):
        raise ConfigError(f"mesh.dcn is {config.dcn}, but the devices are in {slices} slices: set it to {slices}")


def check_batch(shape: BatchShape, name: str, mesh: Mapping[str, int]) -> None:
    """Checks that a global batch can be split over a mesh.

    Args:
      name: the batch's key in the config.
      mesh: size of each axis.

    Raises:
      ConfigError: it cannot.
    """
    rows, parts = math.prod(mesh[axis] for axis in BATCH_AXES), mesh["sequence"]
    for key, size, by in (("rows", shape.rows, rows), ("images", shape.images, rows), ("length", shape.length, parts)):
        if size % by:
            axes = "sequence" if key == "length" else " x ".join(BATCH_AXES)
            near = max(1, round(size / by)) * by
            raise ConfigError(
                f"{name}.{key} is {size}, but the mesh splits it {by} ways ({axes}): set it to {near}, for example"
            )
