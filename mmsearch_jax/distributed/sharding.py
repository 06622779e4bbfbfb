"""From logical axes to shardings: which dim of which array is split over which mesh axis, by a table.

The names of a parameter's dims are the model's business (`models.axes`); this module knows names and meshes only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.mesh import BATCH_AXES

Rules = Mapping[str, tuple[str, ...]]

RULES: Rules = {
    # Parameters: the width over fsdp, what a chip can work on alone over tensor.
    "layers": (),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "vision_embed": ("fsdp",),
    "vision_heads": ("tensor",),
    "vision_mlp": ("tensor",),
    "patch": (),
    "norm": (),
    "rank": (),
    # Activations.
    "batch": BATCH_AXES,
    "length": ("sequence",),
    "images": BATCH_AXES,
}
"""Mesh axes of each logical axis. A config may change any of them."""


def partition_spec(names: Sequence[str], shape: Sequence[int], mesh: Mesh, rules: Rules = RULES) -> PartitionSpec:
    """The spec of an array whose dims carry these logical names.

    A dim that the mesh axes do not divide stays whole, and so does one whose mesh axis an earlier dim took.

    Raises:
      ConfigError: a name or a mesh axis that is not known.
    """
    taken: set[str] = set()
    spec: list[tuple[str, ...] | None] = []
    for name, size in zip(names, shape, strict=True):
        if name not in rules:
            raise ConfigError(f"no sharding rule for the logical axis '{name}': known are {', '.join(sorted(rules))}")
        axes = rules[name]
        unknown = [axis for axis in axes if axis not in mesh.shape]
        if unknown:
            raise ConfigError(
                f"the rule of '{name}' names the mesh axis '{unknown[0]}': known are {', '.join(mesh.shape)}"
            )
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if parts == 1 or size % parts or taken & set(axes):
            spec.append(None)
            continue
        taken |= set(axes)
        spec.append(axes)
    return PartitionSpec(*spec)


def named_sharding(names: Sequence[str], shape: Sequence[int], mesh: Mesh, rules: Rules = RULES) -> NamedSharding:
    """`partition_spec` on its mesh."""
    return NamedSharding(mesh, partition_spec(names, shape, mesh, rules))
