"""The key/value cache of decoding: one row per slot, each with its own length.

Layers are separate arrays, so that writing a token updates its position in place and copies nothing.
Legend: S slots, L cache length, K key/value heads, h head width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from mmsearch_jax.models.config import ModelConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class KVCache:
    """Attributes:
    keys, values: for each layer [S, L, K, h].
    lengths: int32 [S], tokens that are valid in each slot.
    """

    keys: tuple[Float[Array, "S L K h"], ...]
    values: tuple[Float[Array, "S L K h"], ...]
    lengths: Int32[Array, "S"]

    @classmethod
    def create(cls, config: ModelConfig, num_slots: int, max_length: int, dtype: Any) -> KVCache:
        """An empty cache."""
        text = config.text
        shape = (num_slots, max_length, text.num_key_value_heads, text.head_dim)
        # Separate buffers: a donated cache must not contain the same buffer twice.
        keys = tuple(jnp.zeros(shape, dtype) for _ in range(text.num_hidden_layers))
        values = tuple(jnp.zeros(shape, dtype) for _ in range(text.num_hidden_layers))
        return cls(keys, values, jnp.zeros((num_slots,), jnp.int32))

    @property
    def max_length(self) -> int:
        """Tokens that a slot can hold."""
        return self.keys[0].shape[1]
