"""Layers that the vision tower and the language model share: RMSNorm, rotary embedding, gated MLP, layer stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

INIT_STD = 0.02
_UNROLLED_LAYERS = 8
REMAT_POLICIES: dict[str, Any] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What a layer keeps for the backward pass: all, the products with weights, or its input alone."""


class RMSNorm(nnx.Module):
    """Divides by the root of the mean square, in float32, and scales by a weight."""

    def __init__(self, size: int, eps: float, *, param_dtype: Any):
        self.scale = nnx.Param(jnp.ones((size,), param_dtype))
        self._eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size], same dtype."""
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self._eps)
        return (self.scale[...].astype(jnp.float32) * normed).astype(x.dtype)


class GatedMLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, size: int, hidden: int, *, bias: bool, out_std: float, rngs: nnx.Rngs, **dtypes: Any):
        self.gate_proj = linear(size, hidden, bias=bias, rngs=rngs, **dtypes)
        self.up_proj = linear(size, hidden, bias=bias, rngs=rngs, **dtypes)
        self.down_proj = linear(hidden, size, bias=bias, std=out_std, rngs=rngs, **dtypes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size]."""
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


def linear(
    size_in: int, size_out: int, *, bias: bool, rngs: nnx.Rngs, dtype: Any, param_dtype: Any, std: float = INIT_STD
) -> nnx.Linear:
    """A linear layer with normal initial weights."""
    return nnx.Linear(
        size_in, size_out, use_bias=bias, dtype=dtype, param_dtype=param_dtype,
        kernel_init=nnx.initializers.normal(std), rngs=rngs,
    )  # fmt: skip


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
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
    layers: nnx.Module, body: Callable[..., jax.Array], x: jax.Array, *per_layer: Any, remat: str = "none"
) -> jax.Array:
    """Applies `body(layer, x, *per_layer[i])` for every layer of a stack in order, compiled once.

    Args:
      remat: what the backward pass computes again, by name in `REMAT_POLICIES`.
    """
    graph, state = nnx.split(layers)

    def step(x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        layer_state, arguments = inputs
        return body(nnx.merge(graph, layer_state), x, *arguments), None

    if remat != "none":
        step = jax.checkpoint(step, policy=REMAT_POLICIES[remat])
    count = jax.tree.leaves(state)[0].shape[0]
    # Small stacks compile fast and run faster as straight code.
    return jax.lax.scan(step, x, (state, per_layer), unroll=count if count <= _UNROLLED_LAYERS else 1)[0]
