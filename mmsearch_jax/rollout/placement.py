"""Places the sampler's arrays on the chips of its own host, whatever mesh the learner uses.

Rollouts wait for tools, whose latency varies. Each host therefore drives its own engine on a mesh of its own chips, and hosts
need no synchronisation during rollout. The weights come from the learner's mesh over the interconnect, never through a host's
memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from mmsearch_jax.core.errors import CheckpointError, ConfigError
from mmsearch_jax.distributed.mesh import AXES, make_mesh
from mmsearch_jax.distributed.sharding import RULES, Rules, partition_spec
from mmsearch_jax.models.axes import logical_axes
from mmsearch_jax.settings.policy import MeshConfig

_HOST = "host"


def host_mesh(tensor: int = 1, chips: Sequence[Any] | None = None) -> Mesh:
    """A mesh of this host's first `tensor` chips, over which heads, MLP and vocabulary are split.

    Args:
      chips: of a host that is not present (for planning).

    Raises:
      ConfigError: the host has fewer chips.
    """
    chips = jax.local_devices() if chips is None else chips
    if tensor > len(chips):
        raise ConfigError(f"engine.tensor is {tensor}, but this host has {len(chips)} devices: lower it")
    return make_mesh(MeshConfig(1, 1, tensor, 1), chips[:tensor])


def cache_sharding(mesh: Mesh, num_heads: int) -> NamedSharding:
    """The sharding of keys and values [S, L, K, h]: heads over `tensor`; replicated if `tensor` does not divide them.

    Args:
      num_heads: K.
    """
    split = "tensor" if num_heads % mesh.shape["tensor"] == 0 else None
    return NamedSharding(mesh, PartitionSpec(None, None, split, None))


def place_weights(state: Any, held: Any, mesh: Mesh, rules: Rules = RULES) -> Any:
    """`held` with the parameters in `state` replaced by copies on this host's mesh, in the dtypes that they have in `held`.

    They are copies: the caller may donate or change its arrays afterwards.

    Args:
      state: an `nnx` state with some or all parameters, on any devices. If they are spread over several processes, all of these
        must call this together.
      held: an `nnx` state of the whole model, which may have single layers instead of the stacks in `state`.

    Raises:
      CheckpointError: a parameter that `held` does not have, or one with another shape.
    """
    kept = dict(nnx.to_flat_state(held))
    new = {path: (leaf, array) for path, leaf, array in _single_layers(state, kept)}
    arrays, dtypes = {}, {}
    for path, (_, array) in new.items():
        name = ".".join(map(str, path))
        if path not in kept or kept[path].get_value().shape != array.shape:
            raise CheckpointError(f"the engine's model has no parameter {name} of shape {array.shape}")
        arrays[name], dtypes[name] = array, kept[path].get_value().dtype
    copies = _copied(arrays, dtypes, mesh, rules)
    for path, (leaf, _) in new.items():
        kept[path] = leaf.replace(copies[".".join(map(str, path))])
    return nnx.from_flat_state(kept)


def _single_layers(state: Any, held: Mapping[tuple, Any]) -> Iterator[tuple[tuple, Any, jax.Array]]:
    """Path, variable and array of each parameter; stacked layers are split if `held` has single layers."""
    for path, leaf in nnx.to_flat_state(state):
        array = leaf.get_value()
        if (*path[:2], 0, *path[2:]) not in held:
            yield path, leaf, array
            continue
        for i in range(len(array)):
            yield (*path[:2], i, *path[2:]), leaf, array[i]


def weight_spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules = RULES) -> PartitionSpec:
    """The sampler's sharding of a parameter, by its dotted path."""
    # Nothing is split on one chip, so dims need no names (the tests' models have none).
    return PartitionSpec() if mesh.size == 1 else partition_spec(logical_axes(path), shape, mesh, rules, owner=path)


def _copied(
    weights: Mapping[str, jax.Array], dtypes: Mapping[str, Any], mesh: Mesh, rules: Rules
) -> Mapping[str, jax.Array]:
    specs = {path: weight_spec(path, leaf.shape, mesh, rules) for path, leaf in weights.items()}
    if all(leaf.is_fully_addressable for leaf in weights.values()):
        cast = {path: leaf.astype(dtypes[path]) for path, leaf in weights.items()}
        places: dict[str, Sharding] = {path: NamedSharding(mesh, spec) for path, spec in specs.items()}
        return jax.device_put(cast, places, may_alias=False)
    everywhere = _hosts_mesh(mesh)
    whole = {path: NamedSharding(everywhere, spec) for path, spec in specs.items()}

    def copy(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {path: jnp.copy(leaf.astype(dtypes[path])) for path, leaf in leaves.items()}

    spread = jax.jit(copy, out_shardings=whole)(dict(weights))
    return {path: _own_part(leaf, mesh, specs[path]) for path, leaf in spread.items()}


def _hosts_mesh(mesh: Mesh) -> Mesh:
    """The meshes of all hosts, stacked on a first axis: arrays that are not split over it are on every host."""
    by_host: dict[int, list[Any]] = {}
    for device in jax.devices():
        by_host.setdefault(device.process_index, []).append(device)
    if {len(devices) for devices in by_host.values()} != {mesh.size}:
        raise ConfigError(
            f"the sampler's mesh has {mesh.size} devices, the hosts have {[len(d) for d in by_host.values()]}: with several "
            "hosts, set engine.tensor to the number of devices of one host"
        )
    devices = np.asarray([by_host[host] for host in sorted(by_host)]).reshape(-1, *mesh.devices.shape)
    return Mesh(devices, (_HOST, *AXES))


def _own_part(leaf: jax.Array, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """A global array that every host holds in full, as an array of this host only, with the same buffers."""
    buffers = {shard.device: shard.data for shard in leaf.addressable_shards}
    own = [buffers[device] for device in mesh.devices.flat]
    return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(mesh, spec), own)
