"""The language model of Qwen2.5-VL: grouped-query attention with M-RoPE, gated MLPs, with or without a KV cache.

Legend: B batch, L sequence, S slots, T new tokens, D width, H query heads, K key/value heads, h head width.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from mmsearch_jax.models.attention import attention, causal_attention
from mmsearch_jax.models.config import TextConfig
from mmsearch_jax.models.kv_cache import KVCache
from mmsearch_jax.models.layers import INIT_STD, GatedMLP, RMSNorm, layer_at, linear, rotate, scan_layers, stacked


class DecoderLayer(nnx.Module):
    """Attention and gated MLP, each behind an RMSNorm."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, **dtypes: Any):
        size, width = config.hidden_size, config.head_dim
        out_std = INIT_STD / (2 * config.num_hidden_layers) ** 0.5
        self.input_norm = RMSNorm(size, config.rms_norm_eps, param_dtype=dtypes["param_dtype"])
        self.post_attention_norm = RMSNorm(size, config.rms_norm_eps, param_dtype=dtypes["param_dtype"])
        self.q_proj = linear(size, config.num_attention_heads * width, bias=True, rngs=rngs, **dtypes)
        self.k_proj = linear(size, config.num_key_value_heads * width, bias=True, rngs=rngs, **dtypes)
        self.v_proj = linear(size, config.num_key_value_heads * width, bias=True, rngs=rngs, **dtypes)
        self.o_proj = linear(config.num_attention_heads * width, size, bias=False, std=out_std, rngs=rngs, **dtypes)
        self.mlp = GatedMLP(size, config.intermediate_size, bias=False, out_std=out_std, rngs=rngs, **dtypes)
        self._head_dim = width

    def queries_keys_values(
        self, x: Float[Array, "*batch D"], angles: Float32[Array, "*batch half"]
    ) -> tuple[Float[Array, "*batch H h"], Float[Array, "*batch K h"], Float[Array, "*batch K h"]]:
        """Rotated queries [..., H, h] and keys [..., K, h], and values, from normed inputs."""
        x = self.input_norm(x)
        q, k, v = (
            proj(x).reshape(*x.shape[:-1], -1, self._head_dim) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, angles), rotate(k, angles), v

    def finish(self, x: Float[Array, "*batch D"], mixed: Float[Array, "*batch H h"]) -> Float[Array, "*batch D"]:
        """Adds the attention's result and the MLP to the residual stream."""
        x = x + self.o_proj(mixed.reshape(*x.shape[:-1], -1))
        return x + self.mlp(self.post_attention_norm(x))


class LanguageModel(nnx.Module):
    """Token embedding, decoder layers, final norm, vocabulary projection (tied or its own)."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, **dtypes: Any):
        init = nnx.initializers.normal(INIT_STD)
        self.embedding = nnx.Param(init(rngs.params(), (config.vocab_size, config.hidden_size), dtypes["param_dtype"]))
        self.layers = stacked(lambda r: DecoderLayer(config, rngs=r, **dtypes), config.num_hidden_layers, rngs)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, param_dtype=dtypes["param_dtype"])
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else nnx.Param(init(rngs.params(), (config.hidden_size, config.vocab_size), dtypes["param_dtype"]))
        )
        self.config, self._dtype, self.remat = config, dtypes["dtype"], "none"

    def embed(self, token_ids: Int[Array, "*batch"]) -> Float[Array, "*batch D"]:
        """[...] int32 -> [..., D]."""
        return self.embedding[...].astype(self._dtype)[token_ids]

    def __call__(
        self, x_BLD: Float[Array, "B L D"], positions_3BL: Int[Array, "3 B L"], segment_ids_BL: Int[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        """Final hidden states [B, L, D] of embedded tokens."""
        angles = self._angles(positions_3BL)

        def block(layer: DecoderLayer, x: jax.Array) -> jax.Array:
            q, k, v = layer.queries_keys_values(x, angles)
            return layer.finish(x, causal_attention(q, k, v, segment_ids_BL))

        return self.norm(scan_layers(self.layers, [block] * self.config.num_hidden_layers, x_BLD, remat=self.remat))

    def extend(
        self,
        cache: KVCache,
        x_STD: Float[Array, "S T D"],
        positions_3ST: Int[Array, "3 S T"],
        num_new_S: Int[Array, "S"],
    ) -> tuple[Float[Array, "S T D"], KVCache]:
        """Final hidden states of new tokens that follow the cached ones, and the updated cache.

        Tokens at or behind `num_new` are padding: they are not written, and their hidden states have no meaning.
        """
        num_slots, num_tokens, _ = x_STD.shape
        angles = self._angles(positions_3ST)
        index_ST = cache.lengths[:, None] + jnp.arange(num_tokens)[None, :]
        # Padding gets indices out of bounds, so that its writes are dropped.
        target_ST = jnp.where(jnp.arange(num_tokens)[None, :] < num_new_S[:, None], index_ST, cache.max_length)
        mask_STL = jnp.arange(cache.max_length)[None, None, :] <= index_ST[..., None]
        slots = jnp.arange(num_slots)[:, None]
        keys, values, x = [], [], x_STD
        for i in range(self.config.num_hidden_layers):
            layer = layer_at(self.layers, i)
            q, k, v = layer.queries_keys_values(x, angles)
            keys.append(cache.keys[i].at[slots, target_ST].set(k.astype(cache.keys[i].dtype), mode="drop"))
            values.append(cache.values[i].at[slots, target_ST].set(v.astype(cache.values[i].dtype), mode="drop"))
            x = layer.finish(x, attention(q, keys[i], values[i], mask_STL))
        return self.norm(x), KVCache(tuple(keys), tuple(values), cache.lengths + num_new_S)

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float32[Array, "*batch V"]:
        """[..., D] -> [..., V] float32."""
        weight = self.embedding[...].T if self.lm_head is None else self.lm_head[...]
        return jnp.matmul(hidden, weight.astype(hidden.dtype), preferred_element_type=jnp.float32)

    def _angles(self, positions_3BL: Int[Array, "3 B L"]) -> Float32[Array, "B L half"]:
        half = self.config.head_dim // 2
        frequencies = 1.0 / self.config.rope_theta ** (jnp.arange(half, dtype=jnp.float32) / half)
        # Selects which of the three positions rotates each frequency.
        axis = np.repeat(np.arange(3), self.config.mrope_section)
        chosen = jnp.moveaxis(positions_3BL.astype(jnp.float32), 0, -1)[..., axis]
        return chosen * frequencies[None, None, :]
