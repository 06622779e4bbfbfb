"""Places the samplers' arrays on the chips of their own host, whatever mesh the learner uses.

Rollouts wait for tools, whose latency varies. Each host therefore drives its own engines on meshes of its own chips, and hosts
need no synchronisation during rollout. The weights come from the learner's mesh over the interconnect, never through a host's
memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmsearch_jax.core.errors import CheckpointError, ConfigError
from mmsearch_jax.distributed.mesh import AXES, make_mesh
from mmsearch_jax.distributed.sharding import RULES, Rules, partition_spec
from mmsearch_jax.models.axes import logical_axes
from mmsearch_jax.settings.policy import MeshConfig
from mmsearch_jax.settings.rollout import EngineConfig

_HOST, _GROUP = "host", "group"


def host_mesh(tensor: int = 1, chips: Sequence[Any] | None = None) -> Mesh:
    """The first of `host_meshes`."""
    return host_meshes(EngineConfig(tensor=tensor, groups=1), chips)[0]


def host_meshes(config: EngineConfig, chips: Sequence[Any] | None = None) -> list[Mesh]:
    """A mesh for each engine of this host: `config.tensor` chips, over which heads, MLP and vocabulary are split.

    Args:
      chips: of a host that is not present (for planning).

    Raises:
      ConfigError: the host has fewer chips.
    """
    chips = jax.local_devices() if chips is None else chips
    size, groups = config.tensor, config.groups_on(len(chips))
    if size > len(chips):
        raise ConfigError(f"engine.tensor is {size}, but this host has {len(chips)} devices: lower it")
    if groups * size > len(chips):
        raise ConfigError(
            f"engine.groups is {groups}, which with engine.tensor={size} needs {groups * size} devices, but this host has "
            f"{len(chips)}: lower one of them"
        )
    shape = MeshConfig(1, 1, size, 1)
    return [make_mesh(shape, chips[start : start + size]) for start in range(0, groups * size, size)]


def cache_sharding(mesh: Mesh, num_heads: int) -> NamedSharding:
    """The sharding of keys and values [S, L, K, h]: heads over `tensor`; replicated if `tensor` does not divide them.

    Args:
      num_heads: K.
    """
    split = "tensor" if num_heads % mesh.shape["tensor"] == 0 else None
    return NamedSharding(mesh, PartitionSpec(None, None, split, None))


def place_weights(state: Any, held: Any, mesh: Mesh, rules: Rules = RULES) -> Any:
    """`place_on_each` for one mesh."""
    return place_on_each(state, [held], [mesh], rules)[0]


def place_on_each(state: Any, held: Sequence[Any], meshes: Sequence[Mesh], rules: Rules = RULES) -> list[Any]:
    """Each of `held` with the parameters in `state` replaced by copies on its mesh, in the dtypes that they have in `held`.

    They are copies: the caller may donate or change its arrays afterwards.

    Args:
      state: an `nnx` state with some or all parameters, on any devices. If they are spread over several processes, all of these
        must call this together.
      held: for each mesh an `nnx` state of the whole model, which may have single layers instead of the stacks in `state`. All
        have the same shapes and dtypes.
      meshes: of this host, without common devices.

    Raises:
      CheckpointError: a parameter that `held` does not have, or one with another shape.
    """
    kept = [dict(nnx.to_flat_state(each)) for each in held]
    known = kept[0]
    new = {path: (leaf, array) for path, leaf, array in _single_layers(state, known)}
    arrays, dtypes = {}, {}
    for path, (_, array) in new.items():
        name = ".".join(map(str, path))
        if path not in known or known[path].get_value().shape != array.shape:
            raise CheckpointError(f"the engine's model has no parameter {name} of shape {array.shape}")
        arrays[name], dtypes[name] = array, known[path].get_value().dtype
    for own, copies in zip(kept, _copied(arrays, dtypes, meshes, rules), strict=True):
        own |= {path: leaf.replace(copies[".".join(map(str, path))]) for path, (leaf, _) in new.items()}
    return [nnx.from_flat_state(own) for own in kept]


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
    weights: Mapping[str, jax.Array], dtypes: Mapping[str, Any], meshes: Sequence[Mesh], rules: Rules
) -> list[Mapping[str, jax.Array]]:
    """The arrays on each mesh."""
    specs = {path: weight_spec(path, leaf.shape, meshes[0], rules) for path, leaf in weights.items()}
    if not _spread_over(weights, meshes):
        cast = {path: leaf.astype(dtypes[path]) for path, leaf in weights.items()}
        return [
            jax.device_put(cast, {path: NamedSharding(mesh, spec) for path, spec in specs.items()}, may_alias=False)
            for mesh in meshes
        ]
    everywhere = _hosts_mesh(meshes)
    whole = tuple(NamedSharding(everywhere, spec) for spec in specs.values())
    copied = _copier(tuple(dtypes.values()), whole)(tuple(weights.values()))
    spread = dict(zip(weights, copied, strict=True))
    return [{path: _own_part(leaf, mesh, specs[path]) for path, leaf in spread.items()} for mesh in meshes]


def _spread_over(weights: Mapping[str, jax.Array], meshes: Sequence[Mesh]) -> bool:
    """Whether one program over all devices copies the arrays: they are on other hosts too, or on the devices of all meshes."""
    if not all(leaf.is_fully_addressable for leaf in weights.values()):
        return True
    devices = {device for mesh in meshes for device in mesh.devices.flat}
    return len(meshes) > 1 and all(leaf.sharding.device_set == devices for leaf in weights.values())


@functools.lru_cache(maxsize=8)
def _copier(dtypes: tuple[Any, ...], places: tuple[NamedSharding, ...]) -> Callable[..., tuple[jax.Array, ...]]:
    """The program that copies arrays to their places. One function for equal places, or each call would compile again."""

    def copy(leaves: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(jnp.copy(leaf.astype(dtype)) for leaf, dtype in zip(leaves, dtypes, strict=True))

    return jax.jit(copy, out_shardings=places)


def _hosts_mesh(meshes: Sequence[Mesh]) -> Mesh:
    """The meshes of all hosts, stacked on two axes: arrays that are not split over these are in every group of every host."""
    by_host: dict[int, list[Any]] = {}
    for device in jax.devices():
        by_host.setdefault(device.process_index, []).append(device)
    own = by_host[jax.process_index()]
    places = [own.index(device) for mesh in meshes for device in mesh.devices.flat]
    if {len(devices) for devices in by_host.values()} != {len(places)}:
        raise ConfigError(
            f"the sampler's engines have {len(places)} devices, the hosts have {[len(d) for d in by_host.values()]}: with "
            "several hosts, engine.groups x engine.tensor must be the number of devices of one host"
        )
    # Every host has its devices in the same order.
    devices = np.asarray([[by_host[host][place] for place in places] for host in sorted(by_host)])
    return Mesh(devices.reshape(len(by_host), len(meshes), *meshes[0].devices.shape), (_HOST, _GROUP, *AXES))


def _own_part(leaf: jax.Array, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """A global array that every group of every host holds in full, as an array of one group, with the same buffers."""
    buffers = {shard.device: shard.data for shard in leaf.addressable_shards}
    own = [buffers[device] for device in mesh.devices.flat]
    return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(mesh, spec), own)
