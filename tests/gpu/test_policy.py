"""The policy computes the same on a GPU as on the host's CPU (run by `make test-gpu`)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.harness import SMALL
from benchmarks.sft_step import make_sequence
from mmsearch_jax.data.batches import pack
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import BatchShape


def test_log_probs_equal_the_cpus():
    assert jax.default_backend() == "gpu", f"this test needs a GPU; JAX found {jax.devices()[0].platform}"
    sequences = [make_sequence(np.random.default_rng(i), 256, 1, SMALL, (1, 12, 16)) for i in range(2)]
    batch = pack(sequences, BatchShape(2, 256, 2, 192))[0].batch
    cpu, gpu = jax.devices("cpu")[0], jax.devices()[0]
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        # About sqrt(1 / width); the scales of norms are about 1.
        values = 0.05 * rng.standard_normal(leaf.shape, np.float32)
        return values + (path[-1].key == "scale")

    # Drawn on the host, because nnx would compile each weight separately for each device and dtype.
    weights = jax.tree.map_with_path(draw, nnx.to_pure_dict(nnx.state(model_shapes(jnp.float32))))

    def on(device, compute):
        graph, state = nnx.split(model_shapes(compute))
        nnx.replace_by_pure_dict(state, jax.device_put(weights, device))
        score = jax.jit(lambda state, batch: token_logprobs(nnx.merge(graph, state), batch, 1.0).logprobs)
        with jax.default_matmul_precision("highest"):
            return np.asarray(score(state, jax.device_put(batch, device)))

    expected = on(cpu, jnp.float32)
    np.testing.assert_allclose(on(gpu, jnp.float32), expected, atol=1e-4)
    # cuDNN's kernels in bf16 differ from float32 by bf16's rounding.
    assert np.abs(on(gpu, jnp.bfloat16) - expected).mean() < 0.05


def model_shapes(compute):
    return nnx.eval_shape(lambda: Qwen2_5_VL(SMALL, rngs=nnx.Rngs(0), dtype=compute))
