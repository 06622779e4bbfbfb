"""Each platform's attention against JAX's plain form with the same mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmsearch_jax.models.attention import (
    causal_attention,
    causal_mask,
    compiling_for,
    same_segment_mask,
    segment_attention,
    window_attention,
)
from mmsearch_jax.models.attention_cpu import masked
from mmsearch_jax.models.attention_tpu import splash


@jax.jit
def reference(q, k, v, mask):
    """JAX's attention, which every form must equal."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])


# One program instead of one an operation, which is what most of these tests' time would go into.
causal = jax.jit(causal_attention)


def output_and_gradients(function, q, k, v, real):
    """The output at real tokens, and the gradients of its sum of squares."""

    def loss(q, k, v):
        out = jnp.where(real, function(q, k, v), 0.0)
        return (out**2).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return [out, *gradients]


def inputs(length, heads, key_heads, dtype=jnp.float32):
    rng = np.random.default_rng(length)
    q, k, v = (jnp.asarray(rng.normal(size=(2, length, n, 8)), dtype) for n in (heads, key_heads, key_heads))
    # Two sequences and padding in one row, one sequence in the other.
    segments = np.ones((2, length), np.int32)
    segments[0, length // 3 :] = 2
    segments[0, length - length // 5 :] = 0
    return q, k, v, jnp.asarray(segments)


@pytest.mark.parametrize("length", [1, 5, 64, 65, 150, 600])
@pytest.mark.parametrize(("heads", "key_heads"), [(6, 2), (2, 2), (4, 1)])
def test_blocks_equal_the_whole(length, heads, key_heads):
    q, k, v, segments = inputs(length, heads, key_heads)
    expected = reference(q, k, v, causal_mask(segments))
    got = causal(q, k, v, segments)
    real = np.asarray(segments) != 0
    np.testing.assert_allclose(np.asarray(got)[real], np.asarray(expected)[real], atol=1e-5)
    assert bool(jnp.isfinite(got).all())


@pytest.mark.parametrize("length", [64, 65])
def test_float32_on_a_gpu_equals_the_whole(length):
    q, k, v, segments = inputs(length, 6, 2)
    with compiling_for("gpu"):
        got = jax.jit(lambda *qkv: causal_attention(*qkv, segments))(q, k, v)
    real = np.asarray(segments) != 0
    np.testing.assert_allclose(
        np.asarray(got)[real], np.asarray(reference(q, k, v, causal_mask(segments)))[real], atol=1e-5
    )


def test_gradients_equal():
    q, k, v, segments = inputs(150, 6, 2)
    real = (segments != 0)[..., None, None]

    def loss(function, *args):
        return (jnp.where(real, function(*args), 0.0) ** 2).sum()

    def gradients(function):
        return jax.jit(jax.grad(lambda *a: loss(function, *a), (0, 1, 2)))(q, k, v)

    expected = gradients(lambda q, k, v: reference(q, k, v, causal_mask(segments)))
    got = gradients(lambda q, k, v: causal_attention(q, k, v, segments))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("length", [40, 600])
def test_attention_on_a_cpu_equals_the_reference_under_any_mask_and_so_do_its_gradients(length):
    # The longer one needs several blocks, and is not a multiple of the block size.
    q, k, v, _ = inputs(length, 6, 2)
    mask = jnp.asarray(np.random.default_rng(0).random((2, length, length)) < 0.5).at[:, :, 0].set(True)

    def both(function):
        return jax.jit(jax.value_and_grad(lambda q, k, v: (function(q, k, v, mask) ** 2).sum(), (0, 1, 2)))(q, k, v)

    for one, other in zip(jax.tree.leaves(both(masked)), jax.tree.leaves(both(reference)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def windows(length, size):
    """Segments of all lengths up to `size`, one after the other, then padding."""
    rng, ids = np.random.default_rng(length), []
    while len(ids) < length:
        ids += [max(ids, default=0) + 1] * int(rng.integers(1, size + 1))
    padded = np.stack([ids[:length], ids[:length]]).astype(np.int32)
    padded[0, length - length // 5 :] = 0
    return jnp.asarray(padded)


@pytest.mark.parametrize("length", [8, 100, 128, 150])
def test_segments_and_windows_equal_the_whole_and_so_do_their_gradients(length):
    q, k, v, _ = inputs(length, 4, 4)
    segments = windows(length, 16)
    real = (segments != 0)[..., None, None]

    def both(function):
        return output_and_gradients(function, q, k, v, real)

    expected = both(lambda *qkv: reference(*qkv, same_segment_mask(segments)))
    for function in (segment_attention, lambda *args: window_attention(*args, 16)):
        for one, other in zip(both(lambda *qkv, f=function: f(*qkv, segments)), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


def test_half_precision_keeps_its_dtype_and_sums_in_float32():
    q, k, v, segments = inputs(150, 6, 2, jnp.bfloat16)
    got = causal(q, k, v, segments)
    expected = reference(q, k, v, causal_mask(segments))
    real = np.asarray(segments) != 0
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float32)[real], np.asarray(expected, np.float32)[real], atol=0.03)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("length", "width"), [(150, 80), (256, 128)])
def test_the_tpu_kernel_equals_the_reference(causal, length, width):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, length, n, width)), jnp.float32) for n in (4, 2, 2))
    segments = jnp.asarray(
        np.repeat([[1, 2, 0], [1, 1, 1]], [length // 3, length // 3, length - 2 * (length // 3)], axis=1)
    )
    real = (segments != 0)[..., None, None]
    mask = (causal_mask if causal else same_segment_mask)(segments)

    def both(function):
        return output_and_gradients(function, q, k, v, real)

    expected = both(lambda q, k, v: reference(q, k, v, mask))
    got = both(lambda q, k, v: splash(q, k, v, segments, causal=causal, interpret=True))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
