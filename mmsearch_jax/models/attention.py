"""Attention of queries over keys under a mask: the one place that decides how it is computed.

Legend: B batch, T queries, L keys, H query heads, K key/value heads, h head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def attention(q_BTHh: jax.Array, k_BLKh: jax.Array, v_BLKh: jax.Array, mask_BTL: jax.Array) -> jax.Array:
    """Scaled dot-product attention; each key/value head serves H / K query heads.

    Rows of the mask that are all false (padding) give finite, meaningless values.

    Args:
      mask_BTL: bool, true where the query may see the key.

    Returns:
      [B, T, H, h] in the dtype of `q`; the softmax is computed in float32.
    """
    return jax.nn.dot_product_attention(q_BTHh, k_BLKh, v_BLKh, mask=mask_BTL[:, None])


def causal_mask(segment_ids_BL: jax.Array) -> jax.Array:
    """[B, L, L]: a token sees itself and what stands before it in its own segment (0 is padding, seen by nothing)."""
    length = segment_ids_BL.shape[1]
    same = same_segment_mask(segment_ids_BL)
    return same & jnp.tril(jnp.ones((length, length), bool))


def same_segment_mask(segment_ids_BL: jax.Array) -> jax.Array:
    """[B, L, L]: members of the same segment see one another; 0 is padding."""
    return (segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :]) & (segment_ids_BL[:, :, None] != 0)
