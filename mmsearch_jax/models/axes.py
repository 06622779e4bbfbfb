"""The sharding of each parameter on a mesh, by the logical names of its dims (`models.logical_axes`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from mmsearch_jax.distributed.sharding import RULES, Rules, named_sharding
from mmsearch_jax.models.logical_axes import logical_axes

__all__ = ["Placement", "logical_axes", "placement", "shard_state", "spread"]

Placement = Callable[[str, tuple[int, ...]], Sharding]
"""Maps a parameter's dotted path and shape to its sharding."""


def placement(mesh: Mesh, rules: Rules = RULES) -> Placement:
    """The sharding of each parameter on a mesh."""
    if mesh.size == 1:
        # Nothing is split on one device, so dims need no names (the tests' models have none).
        return lambda path, shape: NamedSharding(mesh, PartitionSpec())
    return lambda path, shape: named_sharding(logical_axes(path), shape, mesh, rules, owner=path)


def shard_state(state: Any, mesh: Mesh, rules: Rules = RULES) -> Any:
    """The same `nnx` state with every parameter placed by the rules."""
    place = placement(mesh, rules)
    flat = [
        (path, leaf.replace(spread(leaf.get_value(), place(".".join(map(str, path)), leaf.get_value().shape))))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.from_flat_state(flat)


def spread(values: Any, sharding: Sharding) -> Any:
    """The array under another sharding, which may span all processes: each process must hold all values, or its own part.

    An abstract array (`jax.ShapeDtypeStruct`) is returned with the sharding set.
    """
    if isinstance(values, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=sharding)
    if sharding.is_fully_addressable or not values.is_fully_addressable:
        return jax.device_put(values, sharding)
    host = np.asarray(values)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: host[index])
