"""The hand counts of FLOPs and memory, and the sizes of the published models."""

import jax
import numpy as np
import pytest

from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.data.batches import empty_batch
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.throughput import step_flops
from mmsearch_jax.planning import abstract
from mmsearch_jax.planning.memory import hand_count
from mmsearch_jax.planning.model_flops import Work
from mmsearch_jax.planning.sizes import SIZES, model_of
from mmsearch_jax.settings.commands import SFTSettings
from mmsearch_jax.settings.policy import MeshConfig


def learner(size="7b", *overrides):
    """The SFT learner of a published size on one device, with overrides of the 7B's config."""
    given = [f"--config.{text}" for text in overrides]
    config = load(SFTSettings, "configs/sft_qwen2_5_vl_7b.py", given).settings
    return abstract.learner(config, "sft", SIZES[size], LearnerMesh.of(MeshConfig(), devices=jax.devices()[:1]))


@pytest.mark.parametrize("rank", [0, 8])
def test_model_flops_are_those_of_the_learner_s_own_count_for_full_batches(rank):
    made = learner(
        "7b",
        f"lora.rank={rank}",
        "sft.batch.rows=1",
        "sft.batch.images=1",
        "sft.batch.length=512",
        "sft.batch.patches=256",
    )
    batch = empty_batch(made.shape)
    patches = np.arange(256).reshape(1, 16, 16)
    windows = patches // 128 * 2 + patches % 16 // 8 + 1
    vision = batch.vision._replace(  # type: ignore[union-attr]
        image_segment_ids=np.ones((1, 256), np.int32), window_segment_ids=windows.reshape(1, 256).astype(np.int32)
    )
    full = batch._replace(segment_ids=np.ones((1, 512), np.int32), vision=vision)
    expected = step_flops(made.model, full, full=rank == 0, train_vision=False)
    assert Work.learning(made).model == pytest.approx(expected, rel=1e-9)


def test_batch_shapes_are_those_of_a_packed_batch():
    made = learner("7b", "sft.batch.rows=2", "sft.batch.images=2", "sft.batch.length=64", "sft.batch.patches=16")
    packed = empty_batch(made.shape, ("advantages", "rollout_logprobs"))
    shapes = abstract.batch_shapes(made.shape, made.model.vision, ("rollout_logprobs", "advantages"))
    assert jax.tree.structure(shapes) == jax.tree.structure(packed)
    for ours, theirs in zip(jax.tree.leaves(shapes), jax.tree.leaves(packed), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype


@pytest.mark.parametrize(("size", "billions"), [("3b", 3.75), ("7b", 8.29), ("32b", 33.5), ("72b", 73.4)])
def test_the_published_sizes_have_the_published_number_of_parameters(size, billions):
    made = learner(size)
    count = sum(leaf.size for leaf in jax.tree.leaves(made.state.frozen))
    assert count / 1e9 == pytest.approx(billions, rel=0.01)


def test_weights_and_adapters_of_the_7b_are_counted_as_by_hand():
    count = hand_count(learner())
    assert count.weights == pytest.approx(2 * 8.292e9, rel=1e-3)
    # Rank 8 for every linear module: 8 (in + out) parameters each, and two moments.
    per_layer = 8 * ((3584 + 3584) * 2 + (3584 + 512) * 2 + (3584 + 18944) * 3)
    assert count.trained == 4 * 28 * per_layer
    assert count.optimizer == pytest.approx(2 * count.trained, rel=1e-4)
    # The input of each layer for 8 rows of 8,192 tokens.
    assert count.saved == 28 * 8 * 8192 * 3584 * 2


def test_a_size_is_found_in_the_folder_the_option_or_the_name():
    assert model_of("assets/tiny-base").text.hidden_size < 1000
    assert model_of("Qwen2.5-VL-32B-Instruct") is SIZES["32b"]
    assert model_of("runs/sft/policies/sft", hint="grpo_qwen2_5_vl_7b") is SIZES["7b"]
    assert model_of("runs/sft/policies/sft", size="72B") is SIZES["72b"]
    with pytest.raises(ConfigError, match="--size"):
        model_of("runs/sft/policies/sft")
    with pytest.raises(ConfigError, match="no model size '8b': known are 3b, 7b"):
        model_of("", size="8b")
