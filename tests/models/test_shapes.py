"""The shapes in types are checked while tests run, and only there."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmsearch_jax.images import pixels
from mmsearch_jax.learners.losses import sequence_sums
from mmsearch_jax.models.attention import causal_attention
from mmsearch_jax.rollout.sampling import position_keys


def test_an_array_of_another_shape_than_its_type_s_is_refused():
    heads = jnp.zeros((1, 4, 2, 8))
    causal_attention(heads, heads, heads, jnp.ones((1, 4), jnp.int32))
    with pytest.raises(TypeCheckError, match="segment_ids_BL"):
        causal_attention(heads, heads, heads, jnp.ones((1, 5), jnp.int32))
    with pytest.raises(TypeCheckError):
        sequence_sums(jnp.zeros((2, 3)), jnp.zeros((3, 2), jnp.int32))
    with pytest.raises(TypeCheckError):
        position_keys(jnp.uint32(0), jnp.zeros(3, jnp.uint32), jnp.zeros(2, jnp.int32))


def test_so_is_one_of_another_dtype():
    with pytest.raises(TypeCheckError):
        pixels.resize(np.zeros((28, 28, 3), np.float32), 28, 28)


def test_the_package_itself_loads_no_checker():
    code = "import sys, mmsearch_jax.models.qwen2_5_vl, mmsearch_jax.rollout.engine; print('beartype' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
