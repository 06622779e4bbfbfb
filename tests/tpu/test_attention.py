"""Attention, forward and backward, compiles for hardware that is not present (run by `make test-tpu`, with libtpu)."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from mmsearch_jax.models.attention import causal_attention, compiling_for, segment_attention, window_attention

# Language model and vision tower of the 7B.
SHAPES = {
    causal_attention: (2, 4096, 28, 4, 128),
    segment_attention: (4, 1024, 16, 16, 80),
    functools.partial(window_attention, size=64): (4, 1024, 16, 16, 80),
}


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1"])
@pytest.mark.parametrize("function", SHAPES, ids=("causal", "segments", "windows"))
def test_forward_and_backward_compile(function, topology):
    chip = SingleDeviceSharding(topologies.get_topology_desc(topology, "tpu").devices[0])
    batch, length, heads, key_heads, width = SHAPES[function]

    def shaped(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=chip)

    def loss(q, k, v, segments):
        return function(q, k, v, segments).astype(jnp.float32).sum()

    keys = shaped(batch, length, key_heads, width)
    with compiling_for("tpu"):
        lowered = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(
            shaped(batch, length, heads, width), keys, keys, shaped(batch, length, dtype=jnp.int32)
        )
    # Windows are small, so they need no kernel.
    assert ("tpu_custom_call" in lowered.as_text()) == (not isinstance(function, functools.partial))
    memory = lowered.compile().memory_analysis()
    # The float32 score matrix is never stored whole.
    assert memory.temp_size_in_bytes < 4 * batch * heads * length * length
