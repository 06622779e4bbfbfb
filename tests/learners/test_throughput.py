"""FLOPs counted by hand against XLA's count of the compiled forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.images.vision_inputs import VisionInputs
from mmsearch_jax.learners import throughput
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL

# One layer, because XLA counts the body of a loop over layers once. Wide, so that matrix products dominate.
TEXT = TextConfig(
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    mrope_section=(8, 12, 12),
)
VISION = VisionConfig(
    depth=1, hidden_size=256, intermediate_size=768, num_heads=4, out_hidden_size=256, fullatt_block_indexes=(0,)
)
CONFIG = ModelConfig(TEXT, VISION, image_token_id=5, vision_start_token_id=3, vision_end_token_id=4, video_token_id=6)


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))


def counted_by_xla(model, function, *arguments):
    # Everything is an argument, because the compiler folds constants and does not count them.
    graph, state = nnx.split(model)
    jitted = jax.jit(lambda state, *arguments: function(nnx.merge(graph, state), *arguments))
    cost = jitted.lower(state, *arguments).compile().cost_analysis()
    return (cost[0] if isinstance(cost, list) else cost)["flops"]


def test_the_language_model(model):
    # A short row: the CPU computes attention in blocks, and only XLA counts their masked half, which is small here.
    ids, segments = jnp.ones((4, 64), jnp.int32), jnp.ones((4, 64), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(64), (3, 4, 64))
    found = counted_by_xla(model, lambda model, *inputs: model.logits(model(*inputs)), ids, positions, segments)
    assert throughput.text_flops(TEXT, np.asarray(segments)) == pytest.approx(found, rel=0.03)


def test_the_vision_tower(model):
    patches = np.zeros((2, 64, 588), np.uint8)
    ids = np.ones((2, 64), np.int32)
    inputs = VisionInputs(patches, np.zeros((2, 64, 2), np.int32), ids, ids)
    found = counted_by_xla(model, lambda model, inputs: model.encode_images(inputs), inputs)
    assert throughput.vision_flops(VISION, ids, ids) == pytest.approx(found, rel=0.03)


def test_only_pairs_within_a_segment_count_and_padding_never():
    one = np.array([[1] * 6 + [2] * 2 + [0] * 8])
    other = np.array([[1] * 6 + [0] * 2, [1] * 2 + [0] * 6])
    assert throughput.text_flops(TEXT, one) == throughput.text_flops(TEXT, other)
    longer = np.array([[1] * 8])
    pairs = (8 * 9 - 6 * 7 - 2 * 3) / 2
    assert throughput.text_flops(TEXT, longer) - throughput.text_flops(TEXT, one) == 4 * pairs * 256


def test_the_seven_billion_model_costs_about_two_operations_a_weight_and_token():
    # 7.07e9 weights of the language model without its input embedding (7.62e9 - 152064 * 3584).
    flops = throughput.text_flops(dataclasses.replace(TextConfig()), np.array([[1]]))
    assert flops == pytest.approx(2 * 7.07e9, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("TPU v6 lite", 918e12), ("NVIDIA H200", 989e12), ("cpu", None)],
)
def test_peaks_are_found_by_the_device_s_kind(kind, peak):
    assert throughput.peak_flops(kind) == peak


def test_a_backward_pass_costs_what_is_trained():
    from mmsearch_jax.data.batches import pack
    from mmsearch_jax.settings.learning import BatchShape
    from tests.learners.small_sequences import sequence

    batch = pack([sequence(0, 20)], BatchShape(1, 32))[0].batch
    small = dataclasses.replace(CONFIG)
    attention = throughput.attention_flops(TEXT, batch.segment_ids)
    weights = throughput.text_flops(TEXT, batch.segment_ids) - attention
    for settings, passes, attention_passes in (
        ({"full": True, "train_vision": False}, 3, 3),
        ({"full": False, "train_vision": False}, 2, 3),
        ({"full": False, "train_vision": False, "scorings": 1}, 3, 4),
    ):
        expected = passes * weights + attention_passes * attention
        assert throughput.step_flops(small, batch, **settings) == pytest.approx(expected)


def test_attention_s_backward_pass_has_twice_the_products_of_the_forward_pass():
    q, k, v, weights = (jax.random.normal(jax.random.key(i), (1, 256, 4, 64)) for i in range(4))

    def counted(function):
        cost = jax.jit(function).lower(q, k, v, weights).compile().cost_analysis()
        return (cost[0] if isinstance(cost, list) else cost)["flops"]

    def total(q, k, v, weights):
        return (weights * jax.nn.dot_product_attention(q, k, v)).sum()

    # Beside the products there are the softmax and its gradient, a few operations for every 64 of a product.
    assert counted(jax.value_and_grad(total, argnums=(0, 1, 2))) / counted(total) == pytest.approx(3, rel=0.05)
