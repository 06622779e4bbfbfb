"""Logical names of every parameter's dims, and the sharding of each parameter on a mesh.

The names are not mesh axes: the rules in `distributed.sharding` map names to mesh axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from mmsearch_jax.distributed.sharding import RULES, Rules, named_sharding

Placement = Callable[[str, tuple[int, ...]], Sharding]
"""Maps a parameter's dotted path and shape to its sharding."""

_AXES: dict[str, tuple[str, ...]] = {
    "language.embedding": ("vocab", "embed"),
    "language.lm_head": ("embed", "vocab"),
    "language.norm.scale": ("norm",),
    "vision.patch_embed.kernel": ("patch", "vision_embed"),
    "vision.merger.ln_q.scale": ("norm",),
    "vision.merger.fc1.kernel": ("vision_embed", "vision_mlp"),
    "vision.merger.fc1.bias": ("vision_mlp",),
    "vision.merger.fc2.kernel": ("vision_mlp", "embed"),
    "vision.merger.fc2.bias": ("norm",),
}
# The dims of each kernel by the last module of its path, without the leading layer dim.
_IN_LAYER: dict[str, tuple[str, str]] = {
    "q_proj": ("embed", "heads"),
    "k_proj": ("embed", "heads"),
    "v_proj": ("embed", "heads"),
    "o_proj": ("heads", "embed"),
    "gate_proj": ("embed", "mlp"),
    "up_proj": ("embed", "mlp"),
    "down_proj": ("mlp", "embed"),
    "qkv": ("embed", "heads"),
    "proj": ("heads", "embed"),
}


def logical_axes(path: str) -> tuple[str, ...]:
    """The names of a parameter's dims.

    Args:
      path: dotted, such as "language.layers.q_proj.kernel" (all layers) or "language.layers.0.q_proj.kernel" (one).

    Raises:
      KeyError: no such parameter.
    """
    if path in _AXES:
        return _AXES[path]
    part, _, *modules, kind = path.split(".")
    layers = () if modules[0].isdigit() else ("layers",)
    if kind == "scale":
        return (*layers, "norm")
    names = _IN_LAYER[modules[-1]]
    if part == "vision":
        names = (f"vision_{names[0]}", f"vision_{names[1]}")
    dims = {"kernel": names, "bias": names[1:], "lora_a": (names[0], "rank"), "lora_b": ("rank", names[1])}
    return (*layers, *dims[kind])


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
