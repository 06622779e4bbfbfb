"""LoRA (arXiv 2106.09685): low-rank updates beside frozen kernels of the language model's layers.

DeepMMSearch-R1 trains rank 8 on all linear modules of all language-model blocks (sec. 3.1). The module names and the scale,
alpha / rank, follow PEFT, so that both read an adapter in the same way.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.policy import LoRAConfig

IN_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
IN_MLP = ("gate_proj", "up_proj", "down_proj")


class DropoutKey(nnx.Variable):
    """Key data uint32 [layers..., 2] of a layer's dropout; present only during a training step."""


class LoRALinear(nnx.Module):
    """A linear layer with a low-rank update; it has the leading layer dims of the layer that it replaces."""

    def __init__(self, base: nnx.Linear, config: LoRAConfig, key: jax.Array):
        *layers, size_in, size_out = base.kernel.shape
        # PEFT's initialisation: torch's uniform distribution for `a` and zeros for `b`, so that the update starts at zero.
        bound = size_in**-0.5
        first = jax.random.uniform(key, (*layers, size_in, config.rank), jnp.float32, -bound, bound)
        self.kernel, self.bias = base.kernel, base.bias
        self.lora_a = nnx.LoRAParam(first)
        self.lora_b = nnx.LoRAParam(jnp.zeros((*layers, config.rank, size_out)))
        self.dropout_key: DropoutKey | None = nnx.data(None)
        self.scale, self.dropout, self._dtype = config.alpha / config.rank, config.dropout, base.dtype

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        dtype: Any = self._dtype or x.dtype
        x = x.astype(dtype)
        y = x @ self.kernel[...].astype(dtype)
        if self.bias is not None:
            y = y + jax.lax.broadcast_to_rank(self.bias[...].astype(dtype), y.ndim)
        if self.dropout_key is not None:
            key = jax.random.wrap_key_data(self.dropout_key[...])
            x = jnp.where(jax.random.bernoulli(key, 1 - self.dropout, x.shape), x / (1 - self.dropout), 0)
        return y + _widen(x @ self.lora_a[...].astype(dtype) * self.scale, self.lora_b[...].astype(dtype))

    def merged(self, dtype: Any = None) -> Float[Any, "*layers in out"]:
        """The kernel with the update added, by default in the kernel's dtype; a NumPy array if the parameters are such."""
        kernel = self.kernel[...]
        update = self.lora_a[...] @ self.lora_b[...] * self.scale
        return (kernel.astype(jnp.float32) + update).astype(dtype or kernel.dtype)


def add_lora(model: Qwen2_5_VL, config: LoRAConfig, seed: int = 0) -> Qwen2_5_VL:
    """A model that shares all parameters with the given one and has an update, initially zero, beside each target."""
    copy = _copy(model)
    keys = jax.random.split(jax.random.key(seed), len(config.targets))
    for name, key in zip(config.targets, keys, strict=True):
        owner = _owner(copy, name)
        setattr(owner, name, LoRALinear(getattr(owner, name), config, key))
    return copy


def with_dropout(model: Qwen2_5_VL, key: jax.Array) -> Qwen2_5_VL:
    """The model for one training step: drops the share `lora.dropout` of each update's inputs, chosen by `key`."""
    if not any(layer.dropout for layer in lora_layers(model).values()):
        return model
    copy = _copy(model)
    for number, layer in enumerate(lora_layers(copy).values()):
        keys = jax.random.split(jax.random.fold_in(key, number), layer.kernel.shape[:-2])
        layer.dropout_key = DropoutKey(jax.random.key_data(keys))
    return copy


def merge_lora(model: Qwen2_5_VL, dtype: Any = None) -> Qwen2_5_VL:
    """The equivalent model without LoRA: every update is added to its kernel.

    Args:
      dtype: of the sums; None: each kernel's own. bfloat16 rounds them, which can take half of a small update.
    """
    copy = _copy(model)
    for name, layer in lora_layers(copy).items():
        plain = nnx.eval_shape(lambda shape=layer.kernel.shape: nnx.Linear(*shape[-2:], rngs=nnx.Rngs(0)))
        plain.use_bias, plain.dtype = layer.bias is not None, layer._dtype
        plain.kernel, plain.bias = nnx.Param(layer.merged(dtype)), layer.bias
        setattr(_owner(copy, name), name, plain)
    return copy


def lora_layers(model: Qwen2_5_VL) -> dict[str, LoRALinear]:
    """The updated linear layers by name; empty for a model without LoRA."""
    layers = {name: getattr(_owner(model, name), name) for name in (*IN_ATTENTION, *IN_MLP)}
    return {name: layer for name, layer in layers.items() if isinstance(layer, LoRALinear)}


def _owner(model: Qwen2_5_VL, name: str) -> Any:
    layers: Any = model.language.layers
    return layers.mlp if name in IN_MLP else layers


def _copy(model: Qwen2_5_VL) -> Qwen2_5_VL:
    return nnx.merge(*nnx.split(model))


@jax.custom_vjp
def _widen(x: Float[Array, "*batch rank"], b: Float[Array, "rank out"]) -> Float[Array, "*batch out"]:
    """[..., rank] @ [rank, out], with a backward pass that transposes no wide array. JAX's own computes the gradient of
    `b` from a transposed copy [out, ...], which took two fifths of a training step on a CPU (benchmarks/hot_spots.md)."""
    return x @ b


def _widen_forward(x: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ b, (x, b)


def _widen_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, b = kept
    tokens = tuple(range(x.ndim - 1))
    return gradient @ b.T, jax.lax.dot_general(x, gradient, ((tokens, tokens), ((), ())))


_widen.defvjp(_widen_forward, _widen_backward)
