"""Remat policies change memory, not results."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from tests.models.test_qwen2_5_vl import CONFIG

DEEP = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, num_hidden_layers=12))
IDS = jnp.asarray(np.random.default_rng(0).integers(7, 64, (2, 128)))


def compiled(remat):
    model = Qwen2_5_VL(DEEP, rngs=nnx.Rngs(0))
    model.set_remat(remat)
    graph, state = nnx.split(model)

    def loss(state):
        hidden = nnx.merge(graph, state)(IDS, jnp.broadcast_to(jnp.arange(128), (3, 2, 128)), jnp.ones_like(IDS))
        return (hidden**2).mean()

    program = jax.jit(jax.grad(loss)).lower(state).compile()
    return jax.tree.leaves(program(state)), program.memory_analysis().temp_size_in_bytes


def test_less_memory_and_equal_gradients():
    gradients, memory = zip(*(compiled(name) for name in ("none", "dots", "full")), strict=True)
    assert memory[0] > 1.3 * memory[1] > 1.3 * memory[2], memory
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_an_unknown_policy_is_named():
    with pytest.raises(ConfigError, match="unknown remat 'some': known are none, dots, full"):
        Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)).set_remat("some")
