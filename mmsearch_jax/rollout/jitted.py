"""The engine's device programs, jitted from a model's graph and the shardings of its arrays, real or abstract.

The engine calls them; `mmsearch plan` lowers them for hardware that is not present. Legend: S slots, L cache length,
K key/value heads, h head width, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.kv_cache import KVCache
from mmsearch_jax.rollout import programs
from mmsearch_jax.rollout.placement import cache_sharding
from mmsearch_jax.settings.rollout import EngineConfig


class Places(NamedTuple):
    """Shardings of each leaf of a cache, and of arrays that are replicated on every chip."""

    cache: Any
    whole: NamedSharding


class DevicePrograms(NamedTuple):
    """`extend(weights, cache, hidden, *arguments, length=)`, `decode(weights, cache, hidden, rows, lengths, constants, length=,
    gather=)`, `copy(cache, hidden, source, last, slots, length=)` (see `rollout.programs`) and `encode(weights, vision)`.

    Caches and hidden states are donated.
    """

    extend: Any
    decode: Any
    copy: Any
    encode: Any


class Functions(NamedTuple):
    """The same four before `jax.jit`. Engines on several groups of chips share them: JAX traces each shape once for all."""

    extend: Any
    decode: Any
    copy: Any
    encode: Any


def single_layers(model: Any) -> tuple[Any, Any]:
    """Graph and abstract state of the model in the engine's form."""
    graph, weights = nnx.split(model)
    return nnx.split(nnx.eval_shape(lambda state: nnx.merge(graph, state).with_single_layers(), weights))


def empty_slots(model: ModelConfig, config: EngineConfig, dtype: Any) -> tuple[KVCache, Float[Array, "S D"]]:
    """The cache of all slots, and their last hidden states."""
    cache = KVCache.create(model, config.num_slots, config.max_length, dtype)
    return cache, jnp.zeros((config.num_slots, model.text.hidden_size), dtype)


def places(mesh: Mesh, cache: Any, num_heads: int) -> Places:
    """The shardings of a cache on a host's mesh: keys and values are split by their K heads."""
    whole, heads = NamedSharding(mesh, PartitionSpec()), cache_sharding(mesh, num_heads)
    return Places(jax.tree.map(lambda leaf: whole if leaf.ndim == 1 else heads, cache), whole)


def model_functions(graph: Any, config: EngineConfig) -> Functions:
    """The four functions of a model in the engine's form. Each call makes new ones: jit caches by function.

    Profilers list the programs under the functions' names.
    """

    def rollout_extend(weights, cache, hidden, *args, length):
        return programs.extend_rows(nnx.merge(graph, weights), cache, hidden, *args, length=length)

    def rollout_decode(weights, cache, hidden, rows, lengths, constants, *, length, gather):
        return programs.decode_rows(
            nnx.merge(graph, weights),
            cache,
            hidden,
            rows,
            lengths,
            constants,
            length=length,
            steps=config.decode_steps,
            gather=gather,
            num_top=config.top_logprobs,
        )

    def rollout_copy(cache, hidden, source, last, slots, *, length):
        return programs.copy_rows(cache, hidden, source, last, slots, length=length)

    def rollout_encode(weights, vision):
        return nnx.merge(graph, weights).encode_images(vision)

    return Functions(rollout_extend, rollout_decode, rollout_copy, rollout_encode)


def jit_programs(functions: Functions, places: Places) -> DevicePrograms:
    """The four programs of an engine; each combination of argument shapes is compiled once."""
    # Without `out_shardings` the caches' shardings could change from call to call.
    cache, whole = places
    return DevicePrograms(
        jax.jit(functions.extend, static_argnames="length", donate_argnums=(1, 2), out_shardings=(cache, whole)),
        jax.jit(
            functions.decode,
            static_argnames=("length", "gather"),
            donate_argnums=(1, 2),
            out_shardings=(cache, whole, whole),
        ),
        jax.jit(functions.copy, static_argnames="length", donate_argnums=(0, 1), out_shardings=(cache, whole)),
        jax.jit(functions.encode, out_shardings=whole),
    )
