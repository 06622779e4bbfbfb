"""Attention on a GPU (cuDNN's if it supports the shapes) against the plain form in float32 (run by `make test-gpu`)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmsearch_jax.models.attention import (
    attention,
    causal_attention,
    causal_mask,
    same_segment_mask,
    segment_attention,
    window_attention,
)

# Rounding of bf16 is 2^-8; outputs and gradients are sums of many rounded products.
TOLERANCE = 2e-2


@pytest.fixture(autouse=True)
def _on_a_gpu():
    assert jax.default_backend() == "gpu", f"these tests need a GPU; JAX found {jax.devices()[0].platform}"


def inputs(length, keys, heads, key_heads, width):
    """Queries, keys and values in bf16; two sequences and padding in the first row, one sequence in the second."""
    rng = np.random.default_rng(length)
    shapes = ((length, heads), (keys, key_heads), (keys, key_heads))
    q, k, v = (jnp.asarray(rng.normal(size=(2, *shape, width)), jnp.bfloat16) for shape in shapes)
    segments = np.ones((2, keys), np.int32)
    segments[0, keys // 3 :] = 2
    segments[0, keys - keys // 5 :] = 0
    return q, k, v, jnp.asarray(segments)


def plain(q, k, v, mask):
    """Attention in float32, with products in full precision."""
    with jax.default_matmul_precision("highest"):
        return jax.nn.dot_product_attention(*(x.astype(jnp.float32) for x in (q, k, v)), mask=mask[:, None])


def compare(function, expected, q, k, v, real, *, gradients=True):
    """Compares outputs, and gradients of their sum of squares, relative to their largest values."""

    def loss(function, *args):
        out = jnp.where(real[..., None, None], function(*args).astype(jnp.float32), 0.0)
        return (out**2).sum(), out

    found = [
        jax.jit(jax.value_and_grad(functools.partial(loss, each), (0, 1, 2), has_aux=True))(q, k, v)
        if gradients
        else ((0.0, loss(each, q, k, v)[1]), ())
        for each in (function, expected)
    ]
    ours, theirs = ([out, *slopes] for (_, out), slopes in found)
    for got, want in zip(ours, theirs, strict=True):
        got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
        assert np.isfinite(got).all()
        assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.mark.parametrize("length", [512, 513])
def test_causal(length):
    q, k, v, segments = inputs(length, length, 28, 4, 128)
    compare(
        lambda q, k, v: causal_attention(q, k, v, segments),
        lambda q, k, v: plain(q, k, v, causal_mask(segments)),
        q,
        k,
        v,
        segments > 0,
    )


def test_images():
    q, k, v, segments = inputs(640, 640, 16, 16, 80)
    compare(
        lambda q, k, v: segment_attention(q, k, v, segments),
        lambda q, k, v: plain(q, k, v, same_segment_mask(segments)),
        q,
        k,
        v,
        segments > 0,
    )


def test_windows():
    q, k, v, _ = inputs(640, 640, 16, 16, 80)
    segments = jnp.asarray(np.stack([np.arange(640) // 64 + 1, np.arange(640) // 16 + 1]) * (np.arange(640) < 600))
    compare(
        lambda q, k, v: window_attention(q, k, v, segments, 64),
        lambda q, k, v: plain(q, k, v, same_segment_mask(segments)),
        q,
        k,
        v,
        segments > 0,
    )


@pytest.mark.parametrize("length", [1, 64])
@pytest.mark.parametrize("keys", [512, 513])
def test_over_a_cache(length, keys):
    q, k, v, _ = inputs(length, keys, 28, 4, 128)
    seen = keys // 2 + np.arange(length)
    mask = jnp.asarray(np.broadcast_to(np.arange(keys) <= seen[:, None], (2, length, keys)))
    everywhere = jnp.ones((2, length), bool)
    compare(
        lambda q, k, v: attention(q, k, v, mask),
        lambda q, k, v: plain(q, k, v, mask),
        q,
        k,
        v,
        everywhere,
        gradients=False,
    )
