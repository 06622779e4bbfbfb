"""Attention: the only module that chooses the attention kernel.

Tokens attend only to tokens of the same segment. `causal_attention` serves the language model's full forward,
`segment_attention` and `window_attention` the vision tower (images and windows are segments), and `attention` all other cases
(a cache with its own mask).
The kernel depends on the platform: splash attention on a TPU, cuDNN on a GPU in half precision, blocked matrix products on a
CPU. All must equal `jax.nn.dot_product_attention` under `causal_mask` or `same_segment_mask`.
Legend: B batch, T queries, L keys, H query heads, K key/value heads, h head width.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped

from mmsearch_jax.distributed.mesh import BATCH_AXES
from mmsearch_jax.models import attention_cpu, attention_tpu

WINDOWS_A_BLOCK = 2
"""Windows in a block of queries. A larger value makes larger matrix products and computes more masked scores."""
_TARGET: contextvars.ContextVar[str | None] = contextvars.ContextVar("attention_target", default=None)


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Traces the block for this platform ("tpu", "gpu", "cpu"), even on a machine without such hardware."""
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def attention(
    q_BTHh: Float[Array, "B T H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    mask_BTL: Bool[Array, "B T L"],
) -> Float[Array, "B T H h"]:
    """Scaled dot-product attention; each key/value head serves H / K query heads.

    Rows of the mask that are all false (padding) give finite values without meaning.

    Args:
      mask_BTL: bool, true where the query may see the key.

    Returns:
      [B, T, H, h] in the dtype of `q`; the softmax is computed in float32.
    """
    platform = _platform()
    if platform == "cpu" and q_BTHh.shape[1] > 1:
        return attention_cpu.masked(q_BTHh, k_BLKh, v_BLKh, mask_BTL)
    if platform == "gpu":
        return _gpu(q_BTHh, k_BLKh, v_BLKh, mask_BTL)
    return jax.nn.dot_product_attention(q_BTHh, k_BLKh, v_BLKh, mask=mask_BTL[:, None])


def causal_attention(
    q_BLHh: Float[Array, "B L H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    segment_ids_BL: Int[Array, "B L"],
) -> Float[Array, "B L H h"]:
    """Attention of every token to itself and to the earlier tokens of its segment.

    Returns:
      [B, L, H, h] in the dtype of `q`; values in padding (segment 0) have no meaning.
    """
    # The name distinguishes the two kernels in profiles and plans.
    with jax.named_scope("causal_attention"):
        return _over_mesh(_causal, q_BLHh, k_BLKh, v_BLKh, segment_ids_BL)


def segment_attention(
    q_BLHh: Float[Array, "B L H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    segment_ids_BL: Int[Array, "B L"],
) -> Float[Array, "B L H h"]:
    """Attention of every token to all tokens of its segment.

    Returns:
      [B, L, H, h] in the dtype of `q`; values in padding (segment 0) have no meaning.
    """
    with jax.named_scope("segment_attention"):
        return _over_mesh(_within_segments, q_BLHh, k_BLKh, v_BLKh, segment_ids_BL)


def window_attention(
    q_BLHh: Float[Array, "B L H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    segment_ids_BL: Int[Array, "B L"],
    size: int,
) -> Float[Array, "B L H h"]:
    """`segment_attention` for contiguous segments of at most `size` tokens: costs L x 4 size instead of L x L.

    Queries are grouped in blocks of `WINDOWS_A_BLOCK` times `size` tokens. Each block sees itself and `size` tokens on either
    side, because no segment reaches further.

    Returns:
      [B, L, H, h] in the dtype of `q`; values in padding (segment 0) have no meaning.
    """
    with jax.named_scope("window_attention"):
        return _over_mesh(functools.partial(_within_windows, size=size), q_BLHh, k_BLKh, v_BLKh, segment_ids_BL)


def causal_mask(segment_ids_BL: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
    """[B, L, L]: a token sees itself and the earlier tokens of its segment (0 is padding, which no token sees)."""
    length = segment_ids_BL.shape[1]
    same = same_segment_mask(segment_ids_BL)
    return same & jnp.tril(jnp.ones((1, length, length), bool))


def same_segment_mask(segment_ids_BL: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
    """[B, L, L]: tokens of the same segment see each other; 0 is padding."""
    return (segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :]) & (segment_ids_BL[:, :, None] != 0)


def _causal(
    q_BLHh: Float[Array, "B L H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    segment_ids_BL: Int[Array, "B L"],
) -> Float[Array, "B L H h"]:
    platform = _platform()
    if platform == "tpu":
        return attention_tpu.splash(q_BLHh, k_BLKh, v_BLKh, segment_ids_BL, causal=True)
    if platform == "cpu":
        return attention_cpu.causal_blocks(q_BLHh, k_BLKh, v_BLKh, causal_mask(segment_ids_BL))
    return _gpu(q_BLHh, k_BLKh, v_BLKh, causal_mask(segment_ids_BL))


def _within_segments(
    q_BLHh: Float[Array, "B L H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    segment_ids_BL: Int[Array, "B L"],
) -> Float[Array, "B L H h"]:
    platform = _platform()
    if platform == "tpu":
        return attention_tpu.splash(q_BLHh, k_BLKh, v_BLKh, segment_ids_BL, causal=False)
    return attention(q_BLHh, k_BLKh, v_BLKh, same_segment_mask(segment_ids_BL))


def _within_windows(
    q: Float[Array, "B L H h"],
    k: Float[Array, "B L K h"],
    v: Float[Array, "B L K h"],
    segment_ids_BL: Int[Array, "B L"],
    *,
    size: int,
) -> Float[Array, "B L H h"]:
    rows, length = segment_ids_BL.shape
    block = WINDOWS_A_BLOCK * size
    if length <= block + 2 * size:
        return _within_segments(q, k, v, segment_ids_BL)

    def blocks(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, -length % block), *((0, 0),) * (x.ndim - 2)))
        return padded.reshape(rows, -1, block, *x.shape[2:])

    def with_sides(x: jax.Array) -> jax.Array:
        own = blocks(x)
        none = jnp.zeros_like(own[:, :1])
        before, behind = jnp.concatenate([none, own[:, :-1]], axis=1), jnp.concatenate([own[:, 1:], none], axis=1)
        return joined(jnp.concatenate([before[:, :, -size:], own, behind[:, :, :size]], axis=2))

    def joined(x: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])

    # The backward pass recomputes the scores, as the kernels do: stored, they would be the layer's largest activation.
    @jax.checkpoint
    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        own, seen = joined(blocks(segment_ids_BL)), with_sides(segment_ids_BL)
        mask = (own[:, :, None] == seen[:, None, :]) & (own[:, :, None] != 0)
        return attention(joined(blocks(q)), with_sides(k), with_sides(v), mask)

    return attend(q, k, v).reshape(rows, -1, *q.shape[2:])[:, :length]


def _over_mesh(
    function: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array
) -> jax.Array:
    """Runs the function on each device's own rows and heads: the compiler cannot split a kernel.

    Tokens that are split over `sequence` are gathered, and the heads are split over that axis instead (the all-to-all
    of DeepSpeed-Ulysses, arXiv 2309.14509). Dims that the axes do not divide stay whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(q, k, v, ids)
    rows, heads = _divided(mesh, q.shape[0], BATCH_AXES), _divided(mesh, k.shape[2], ("tensor", "sequence"))
    split = PartitionSpec(rows, None, heads, None)
    return jax.shard_map(
        function, in_specs=(split, split, split, PartitionSpec(rows, None)), out_specs=split, check_vma=False
    )(q, k, v, ids)


def split_rows(x: Shaped[Array, "R ..."]) -> Shaped[Array, "R ..."]:
    """The array [R, ...] with its rows split over the mesh's batch axes, if there is a mesh. Without this constraint
    the compiler gathers all rows on every chip in some places."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    rows = _divided(mesh, x.shape[0], BATCH_AXES)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(rows, *[None] * (x.ndim - 1)))


def _divided(mesh: AbstractMesh, size: int, axes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The longest prefix of these mesh axes over which a dim of this size can be split."""
    for number in range(len(axes), 0, -1):
        if size % math.prod(mesh.shape[axis] for axis in axes[:number]) == 0:
            return axes[:number]
    return None


def _platform() -> str:
    return _TARGET.get() or jax.default_backend()


def _gpu(
    q_BTHh: Float[Array, "B T H h"],
    k_BLKh: Float[Array, "B L K h"],
    v_BLKh: Float[Array, "B L K h"],
    mask_BTL: Bool[Array, "B T L"],
) -> Float[Array, "B T H h"]:
    # cuDNN supports only half precision, and gradients only at even lengths. float32 (parity runs) and a single query token
    # (decoding) use XLA.
    half = q_BTHh.dtype in (jnp.bfloat16, jnp.float16)
    fits = half and q_BTHh.shape[1] % 2 == 0 and k_BLKh.shape[1] % 2 == 0
    return jax.nn.dot_product_attention(
        q_BTHh, k_BLKh, v_BLKh, mask=mask_BTL[:, None], implementation="cudnn" if fits else "xla"
    )
