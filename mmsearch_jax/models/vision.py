"""The vision tower of Qwen2.5-VL: maps the patches of all images of a batch to features of the language model's width.

Windows and images are segments of a packed row of patches, so one mask serves any mix of sizes. The patches of a window are
contiguous (`images/vision_inputs.py`), so that the cost of a window does not grow with the row.
Patches are given as bytes; this is the only place that normalises them.
Legend: R rows, P patches in a row, D width, m merge size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, UInt8

from mmsearch_jax.images.processing import MEAN, STD
from mmsearch_jax.images.vision_inputs import VisionInputs
from mmsearch_jax.models.attention import segment_attention, split_rows, window_attention
from mmsearch_jax.models.config import VisionConfig
from mmsearch_jax.models.layers import INIT_STD, GatedMLP, RMSNorm, linear, rotate, scan_layers, stacked

_EPS = 1e-6


def model_input(patches: UInt8[Array | np.ndarray, "*batch bytes"], num_frames: int) -> Float32[Array, "*batch values"]:
    """uint8 [..., 3 * n] (channel by channel, n pixels each) to float32 [..., 3 * num_frames * n]: scales, normalises, and
    copies the pixels into every frame of a temporal patch, since the images are still."""
    channels = patches.reshape(*patches.shape[:-1], 3, 1, -1).astype(jnp.float32) / 255.0
    mean, std = (jax.lax.broadcast_to_rank(jnp.array(each)[:, None, None], channels.ndim) for each in (MEAN, STD))
    normal = (channels - mean) / std
    return jnp.repeat(normal, num_frames, axis=-2).reshape(*patches.shape[:-1], -1)


class VisionBlock(nnx.Module):
    """Attention and gated MLP, each behind an RMSNorm."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, **dtypes: Any):
        size = config.hidden_size
        out_std = INIT_STD / (2 * config.depth) ** 0.5
        self.norm1 = RMSNorm(size, _EPS, param_dtype=dtypes["param_dtype"])
        self.norm2 = RMSNorm(size, _EPS, param_dtype=dtypes["param_dtype"])
        self.qkv = linear(size, 3 * size, bias=True, rngs=rngs, **dtypes)
        self.proj = linear(size, size, bias=True, std=out_std, rngs=rngs, **dtypes)
        self.mlp = GatedMLP(size, config.intermediate_size, bias=True, out_std=out_std, rngs=rngs, **dtypes)
        self._heads = config.num_heads

    def __call__(
        self, x_RPD: Float[Array, "R P D"], angles: Float32[Array, "R P half"], attend: Callable[..., jax.Array]
    ) -> Float[Array, "R P D"]:
        """Applies the block; `angles` [R, P, h / 2], `attend` takes queries, keys and values [R, P, heads, h]."""
        rows, patches, _ = x_RPD.shape
        qkv = self.qkv(self.norm1(x_RPD)).reshape(rows, patches, 3, self._heads, -1)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        mixed = attend(rotate(q, angles), rotate(k, angles), v)
        x_RPD = x_RPD + self.proj(mixed.reshape(rows, patches, -1))
        return x_RPD + self.mlp(self.norm2(x_RPD))


class PatchMerger(nnx.Module):
    """Joins m x m neighbouring patches into one token of the language model's width."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, **dtypes: Any):
        joined = config.hidden_size * config.spatial_merge_size**2
        self.ln_q = RMSNorm(config.hidden_size, _EPS, param_dtype=dtypes["param_dtype"])
        self.fc1 = linear(joined, joined, bias=True, rngs=rngs, **dtypes)
        self.fc2 = linear(joined, config.out_hidden_size, bias=True, rngs=rngs, **dtypes)
        self._joined = joined

    def __call__(self, x_RPD: Float[Array, "R P D"]) -> Float[Array, "R tokens out"]:
        """[R, P, D] -> [R, P / m^2, out]."""
        joined = self.ln_q(x_RPD).reshape(x_RPD.shape[0], -1, self._joined)
        return self.fc2(jax.nn.gelu(self.fc1(joined), approximate=False))


class VisionTower(nnx.Module):
    """Patch embedding, blocks (all windowed except a few), merger."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, **dtypes: Any):
        self.patch_embed = linear(config.patch_dim, config.hidden_size, bias=False, rngs=rngs, **dtypes)
        self.blocks = stacked(lambda r: VisionBlock(config, rngs=r, **dtypes), config.depth, rngs)
        self.merger = PatchMerger(config, rngs=rngs, **dtypes)
        self._full = tuple(i in config.fullatt_block_indexes for i in range(config.depth))
        self._head_dim, self._theta = config.head_dim, config.rope_theta
        self._num_frames, self._window = config.temporal_patch_size, config.window_patches**2
        self._dtype, self.remat = dtypes["dtype"], "none"

    def __call__(self, vision: VisionInputs) -> Float[Array, "N out"]:
        """Features [R * P / m^2, out], ordered by row and, within a row, by merged patch."""
        angles = self._angles(jnp.asarray(vision.positions))
        images, windows = jnp.asarray(vision.image_segment_ids), jnp.asarray(vision.window_segment_ids)

        def whole(layer: VisionBlock, x: jax.Array) -> jax.Array:
            return layer(x, angles, functools.partial(segment_attention, segment_ids_BL=images))

        def windowed(layer: VisionBlock, x: jax.Array) -> jax.Array:
            return layer(x, angles, functools.partial(window_attention, segment_ids_BL=windows, size=self._window))

        seen = split_rows(model_input(jnp.asarray(vision.patches), self._num_frames).astype(self._dtype))
        x = self.patch_embed(seen)
        x = scan_layers(self.blocks, [whole if full else windowed for full in self._full], x, remat=self.remat)
        merged = self.merger(x)
        return merged.reshape(-1, merged.shape[-1])

    def _angles(self, positions_RP2: Int[Array, "R P 2"]) -> Float32[Array, "R P half"]:
        quarter = self._head_dim // 4
        frequencies = 1.0 / self._theta ** (jnp.arange(quarter, dtype=jnp.float32) / quarter)
        angles = positions_RP2.astype(jnp.float32)[..., None] * frequencies[None, None, None, :]
        return angles.reshape(*positions_RP2.shape[:2], 2 * quarter)
