"""Random parameters from which the tiny base starts to learn within few steps."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

EMBEDDING_STD = 0.12
"""Deviation of text embeddings: what those of a trained tiny base have, and keep if they start with it."""

_BRANCH_ENDS = {"proj", "o_proj", "down_proj"}
_Module = TypeVar("_Module", bound=nnx.Module)


def fan_in(model: _Module, seed: int) -> _Module:
    """The model with new kernels of deviation 1 / sqrt(inputs), less at the end of each residual branch, and new embeddings.

    The published models' deviation (0.02) suits their width; models of width 128 or 192 begin to learn much later with it.
    """
    graph, state = nnx.split(model)
    rng = np.random.default_rng([seed, 1])

    def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = {str(getattr(key, "key", key)) for key in path}
        if "embedding" in names:
            return jnp.asarray(rng.normal(0.0, EMBEDDING_STD, leaf.shape), leaf.dtype)
        if "kernel" not in names:
            return leaf
        # Kernels of residual branches are stacked over the layers, each of which adds two branches.
        branches = 2 * leaf.shape[0] if names & _BRANCH_ENDS else 1
        return jnp.asarray(rng.normal(0.0, 1.0 / math.sqrt(leaf.shape[-2] * branches), leaf.shape), leaf.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(one, state))
