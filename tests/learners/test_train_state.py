"""Optimisers by name: which parameters Muon updates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmsearch_jax.learners.train_state import make_optimizer
from mmsearch_jax.models.layers import linear, stacked
from mmsearch_jax.settings.learning import OptimizerConfig

RATE = 0.01


class Small(nnx.Module):
    def __init__(self, rngs):
        self.layers = stacked(
            lambda r: linear(6, 10, bias=True, rngs=r, dtype=jnp.float32, param_dtype=jnp.float32), 3, rngs
        )
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (8, 6)))


@pytest.fixture(scope="module")
def update() -> tuple[Any, Any, Any]:
    """Parameters, gradients and the first update of a model with stacked layers, as pure dicts."""
    params = nnx.to_pure_dict(nnx.state(Small(nnx.Rngs(0))))
    gradients = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).normal(size=leaf.shape), jnp.float32), params
    )
    config = OptimizerConfig(name="muon", learning_rate=RATE, decay="constant", max_grad_norm=1e9)
    optimizer = make_optimizer(config, 10)
    state, found = optimizer.init(params), None
    for _ in range(2):  # the first rate of a constant schedule is 0
        found, state = optimizer.update(gradients, state, params)
    return params, gradients, found


def test_muon_updates_each_layer_of_a_stack_as_a_matrix(update):
    params, gradients, found = update
    alone = optax.contrib.muon(RATE, consistent_rms=0.2)
    for i in range(3):
        kernel, gradient = params["layers"]["kernel"][i], gradients["layers"]["kernel"][i]
        expected: Any = None
        state = alone.init({"w": kernel})
        for _ in range(2):
            expected, state = alone.update({"w": gradient}, state, {"w": kernel})
        np.testing.assert_allclose(found["layers"]["kernel"][i], expected["w"], atol=1e-6)
        # Newton-Schulz brings all singular values close to one another, which no elementwise update does.
        sizes = np.linalg.svd(found["layers"]["kernel"][i], compute_uv=False)
        assert sizes.min() > 0.5 * sizes.max()


def test_embeddings_and_biases_are_updated_by_adam(update):
    _, gradients, found = update
    for name, each in (("embedding", found["embedding"]), ("bias", found["layers"]["bias"])):
        gradient = gradients["embedding"] if name == "embedding" else gradients["layers"]["bias"]
        # With the same gradient at every step Adam moves each value by the same distance, about the learning rate.
        np.testing.assert_array_equal(np.sign(each), -np.sign(gradient))
        np.testing.assert_allclose(np.abs(each), np.abs(each).mean(), rtol=1e-3)
        assert RATE <= np.abs(each).mean() < 1.2 * RATE
