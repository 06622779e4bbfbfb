"""Layers that the vision tower and the language model share: RMSNorm, rotary embedding, gated MLP, layer stacks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

INIT_STD = 0.02
_UNROLLED_LAYERS = 8
REMAT_POLICIES: dict[str, Any] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What a layer stores for the backward pass: everything, the products with weights, or only its input."""


class RMSNorm(nnx.Module):
    """Divides by the root of the mean square, in float32, and scales by a weight."""

    def __init__(self, size: int, eps: float, *, param_dtype: Any):
        self.scale = nnx.Param(jnp.ones((size,), param_dtype))
        self._eps = eps

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """The normed values, in the dtype of `x`."""
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self._eps)
        scale = jax.lax.broadcast_to_rank(self.scale[...].astype(jnp.float32), x.ndim)
        return (scale * normed).astype(x.dtype)


class GatedMLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, size: int, hidden: int, *, bias: bool, out_std: float, rngs: nnx.Rngs, **dtypes: Any):
        self.gate_proj = linear(size, hidden, bias=bias, rngs=rngs, **dtypes)
        self.up_proj = linear(size, hidden, bias=bias, rngs=rngs, **dtypes)
        self.down_proj = linear(hidden, size, bias=bias, std=out_std, rngs=rngs, **dtypes)

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


def linear(
    size_in: int, size_out: int, *, bias: bool, rngs: nnx.Rngs, dtype: Any, param_dtype: Any, std: float = INIT_STD
) -> nnx.Linear:
    """A linear layer with normal initial weights."""
    return nnx.Linear(
        size_in,
        size_out,
        use_bias=bias,
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=nnx.initializers.normal(std),
        rngs=rngs,
    )


def rotate(x: Float[Array, "*batch H h"], angles: Float32[Array, "*batch h//2"]) -> Float[Array, "*batch H h"]:
    """Rotary embedding (the two halves of a head are the pair's coordinates), computed in float32.

    Args:
      x: [..., heads, h].
      angles: [..., h / 2] float32, broadcast over the heads.
    """
    cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def stacked(make: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """`count` layers as one module whose parameters have a leading layer dim."""
    return nnx.vmap(make, in_axes=(nnx.StateAxes({...: 0}),))(rngs.split(count))


def layer_at(layers: Any, index: int) -> Any:
    """One layer of a stack, or of a list."""
    if isinstance(layers, nnx.List):
        return layers[index]
    graph, state = nnx.split(layers)
    return nnx.merge(graph, jax.tree.map(lambda leaf: leaf[index], state))


def scan_layers(
    layers: nnx.Module, bodies: Sequence[Callable[..., jax.Array]], x: Float[Array, "*batch D"], *, remat: str = "none"
) -> Float[Array, "*batch D"]:
    """Applies `bodies[i](layer, x)` for every layer i of a stack in order.

    Consecutive layers with the same body are compiled once, and so is a repeating pattern of bodies.

    Args:
      remat: what the backward pass recomputes, by name in `REMAT_POLICIES`.
    """
    graph, state = nnx.split(layers)
    count = len(bodies)
    # Small stacks compile fast and run faster unrolled.
    unroll = count <= _UNROLLED_LAYERS

    def step(body: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, None]]:
        def one(x: jax.Array, layer_state: Any) -> tuple[jax.Array, None]:
            return body(nnx.merge(graph, layer_state), x), None

        return one if remat == "none" else jax.checkpoint(one, policy=REMAT_POLICIES[remat])

    def in_order(x: jax.Array, state: Any) -> tuple[jax.Array, None]:
        start = 0
        for body, same in itertools.groupby(bodies[:period]):
            run = slice(start, start := start + len(list(same)))
            x = jax.lax.scan(step(body), x, jax.tree.map(lambda leaf, run=run: leaf[run], state), unroll=unroll)[0]
        return x, None

    period = next(
        size
        for size in range(1, count + 1)
        if count % size == 0 and list(bodies) == list(bodies[:size]) * (count // size)
    )
    if period == 1:
        return jax.lax.scan(step(bodies[0]), x, state, unroll=unroll)[0]
    patterns = jax.tree.map(lambda leaf: leaf.reshape(-1, period, *leaf.shape[1:]), state)
    return jax.lax.scan(in_order, x, patterns, unroll=unroll)[0]
