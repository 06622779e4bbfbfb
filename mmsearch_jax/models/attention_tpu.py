"""Splash attention (JAX's own kernel for TPUs). Legend: B batch, L tokens, H query heads, K key/value heads, h head width."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float, Int

_LANES = 128
_MAX_BLOCK = 512


def splash(
    q_BLHh: Float[Array, "B L H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    segment_ids_BL: Int[Array, "B L"],
    *,
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "B L H h"]:
    """Attention within segments.

    The kernel needs whole tiles: tokens are padded with segment 0 and heads with zeros; the result is cut to size.

    Args:
      interpret: run the kernel without a TPU, for tests.
    """
    _, length, heads, width = q_BLHh.shape
    groups = heads // k_BLKh.shape[2]
    block = min(_MAX_BLOCK, -(-length // _LANES) * _LANES)
    padded = -(-length // block) * block

    def tiles(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, padded - length), (0, 0), (0, -width % _LANES))).transpose(0, 2, 1, 3)

    q = tiles(q_BLHh * width**-0.5)
    q = q.reshape(q.shape[0], -1, groups, *q.shape[2:])
    segments = jnp.pad(segment_ids_BL, ((0, 0), (0, padded - length)))
    mask = (masks.CausalMask if causal else masks.FullMask)((padded, padded))
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    one_head = kernel.make_splash_mqa_single_device(
        masks.MultiHeadMask([mask] * groups), block_sizes=sizes, interpret=interpret
    )
    per_key_head = jax.vmap(one_head, in_axes=(0, 0, 0, None))
    ids = kernel.SegmentIds(segments, segments)
    mixed = cast(jax.Array, jax.vmap(per_key_head)(q, tiles(k_BLKh), tiles(v_BLKh), ids))
    mixed = mixed.reshape(mixed.shape[0], heads, padded, -1).transpose(0, 2, 1, 3)
    return mixed[:, :length, :, :width].astype(q_BLHh.dtype)
