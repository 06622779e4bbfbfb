"""JAX's own guards are on while tests run."""

import jax.numpy as jnp
import pytest


def test_arrays_of_different_ranks_do_not_combine_silently():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)
