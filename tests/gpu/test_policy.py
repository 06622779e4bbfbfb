"""The policy computes the same on a GPU as on the CPU beside it (run by `make test-gpu`)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.harness import SMALL
from benchmarks.sft_step import make_sequence
from mmsearch_jax.data.batches import BatchShape, pack
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL


def test_log_probs_equal_the_cpus():
    assert jax.default_backend() == "gpu", f"this test needs a GPU; JAX found {jax.devices()[0].platform}"
    sequences = [make_sequence(np.random.default_rng(i), 256, 1, SMALL, (1, 12, 16)) for i in range(2)]
    batch = pack(sequences, BatchShape(2, 256, 2, 192))[0].batch
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        weights = jax.tree.map(np.asarray, nnx.state(Qwen2_5_VL(SMALL, rngs=nnx.Rngs(0))))

    def on(device, dtype, compute):
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            model = Qwen2_5_VL(SMALL, rngs=nnx.Rngs(0), dtype=compute, param_dtype=dtype)
            nnx.update(model, jax.device_put(jax.tree.map(lambda x: x.astype(dtype), weights), device))
            return np.asarray(nnx.jit(lambda model, batch: token_logprobs(model, batch, 1.0).logprobs)(model, batch))

    expected = on(cpu, jnp.float32, jnp.float32)
    np.testing.assert_allclose(on(jax.devices()[0], jnp.float32, jnp.float32), expected, atol=1e-4)
    # In bf16 by cuDNN's kernels: as far from float32 as bf16 is.
    assert np.abs(on(jax.devices()[0], jnp.float32, jnp.bfloat16) - expected).mean() < 0.05
