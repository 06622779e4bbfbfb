"""The vision tower's own lessons: the loss against a plain reference, features of sound length, resuming."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import TrainingDiverged
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.miniworld import dense_labels, pretraining, tower
from mmsearch_jax.miniworld.dense_labels import DenseLabels, Pixels
from mmsearch_jax.miniworld.initial import EMBEDDING_STD, fan_in
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.vision import VisionTower
from mmsearch_jax.settings.learning import OptimizerConfig, RunConfig
from mmsearch_jax.settings.world import TowerConfig

VISION = VisionConfig(
    depth=2, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=24, fullatt_block_indexes=(1,)
)


def scene(seed):
    """A flag of one colour on grey, in the left or in the right half."""
    rng = np.random.default_rng(seed)
    image, x = np.full((56, 112, 3), 128, np.uint8), int(rng.choice([0, 56]))
    image[:, x : x + 56] = rng.integers(0, 256, 3)
    return Pixels(image, ("flag",), np.array([[x, 0, x + 56, 56]], np.float32))


SCENES = [scene(seed) for seed in range(8)]


def new_tower():
    return fan_in(VisionTower(VISION, rngs=nnx.Rngs(0), dtype=np.float32, param_dtype=np.float32), 0)


def test_dense_loss_equals_a_loop_over_tokens():
    rng = np.random.default_rng(0)
    labels = DenseLabels(*(np.stack(parts) for parts in zip(*(dense_labels.label(s, 28) for s in SCENES), strict=True)))
    outputs = {name: rng.normal(size=(8, 8, size)).astype(np.float32) for name, (size, _) in tower._HEADS.items()}
    total, parts = tower.dense_loss(outputs, labels)
    expected = {}
    for name, values in outputs.items():
        gold, found = getattr(labels, name), []
        for n, t in np.ndindex(8, 8):
            logprobs = values[n, t] - np.log(np.exp(values[n, t].astype(np.float64)).sum())
            if name in ("edges", "centre"):
                if labels.inside[n, t]:
                    found.append(np.abs(values[n, t] - gold[n, t]).mean())
            elif name == "shares":
                found.append(-(gold[n, t] * logprobs).sum())
            elif {"colour": labels.has_colour, "place": labels.inside}.get(name, np.ones((8, 8)))[n, t]:
                found.append(-logprobs[gold[n, t]])
        expected[name] = np.mean(found)
        assert float(parts[name]) == pytest.approx(expected[name], rel=1e-5), name
    weights = {"edges": 3, "centre": 3, "num_pictures": 0.7, "num_flags": 0.7}
    assert float(total) == pytest.approx(
        sum(weights.get(name, 1) * value for name, value in expected.items()), rel=1e-5
    )


def test_centred_features_are_the_old_ones_shifted_and_scaled():
    plain = new_tower()
    given = tower.inputs(SCENES, VISION)
    before = tower.features_of(plain, *given)
    after = tower.features_of(tower.centred(plain, *given), *given)
    shifted = before - before.mean((0, 1))
    np.testing.assert_allclose(after, shifted * (tower.FEATURE_STD / shifted.std()), atol=1e-5)
    np.testing.assert_array_equal(tower.features_of(plain, *given), before)


def course(steps):
    return TowerConfig(steps, 4, OptimizerConfig(learning_rate=1e-2, decay="constant"))


def test_the_tower_learns_and_resumes_to_the_same_numbers(tmp_path):
    def losses(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return {line["step"]: line["loss"] for line in map(json.loads, lines)}

    def train(folder, steps):
        place = RunPlace(folder, "pretrain_tower", RunConfig(checkpoint_every=10), show_progress=False)
        return tower.train_tower(new_tower(), VISION, SCENES, course(steps), place, seed=3)

    whole = train(tmp_path / "whole", 20)
    found = losses(tmp_path / "whole")
    assert np.mean([found[step] for step in range(16, 21)]) < 0.7 * found[1]
    train(tmp_path / "parts", 10)
    resumed = train(tmp_path / "parts", 20)
    for one, other in zip(jax.tree.leaves(nnx.state(whole)), jax.tree.leaves(nnx.state(resumed)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_kernels_start_with_the_deviation_of_their_inputs():
    text = TextConfig(vocab_size=64, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
                      num_key_value_heads=1, mrope_section=(4, 4, 4))  # fmt: skip
    vision = dataclasses.replace(VISION, hidden_size=32, out_hidden_size=48)
    model = fan_in(Qwen2_5_VL(ModelConfig(text=text, vision=vision), rngs=nnx.Rngs(0)), 0)
    layers: Any = model.language.layers
    blocks: Any = model.vision.blocks
    for kernel, expected in (
        (layers.q_proj.kernel, 48**-0.5),
        (layers.o_proj.kernel, (48 * 4) ** -0.5),
        (layers.mlp.down_proj.kernel, (96 * 4) ** -0.5),
        (blocks.qkv.kernel, 32**-0.5),
        (model.vision.merger.fc1.kernel, 128**-0.5),
        (model.language.embedding, EMBEDDING_STD),
    ):
        assert float(np.std(kernel[...])) == pytest.approx(expected, rel=0.05)


def test_features_much_longer_than_text_embeddings_are_refused():
    text = TextConfig(vocab_size=32, hidden_size=24, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                      num_key_value_heads=1, mrope_section=(2, 2, 2))  # fmt: skip
    model = Qwen2_5_VL(ModelConfig(text=text, vision=VISION), rngs=nnx.Rngs(0))
    model.vision = tower.centred(model.vision, *tower.inputs(SCENES, VISION))
    with pytest.raises(TrainingDiverged, match=r"a mean norm of 1\.\d+, text embeddings of 0\.\d+: the ratio 1\d"):
        pretraining.check_norms(model, SCENES)
    model.language.embedding[...] = model.language.embedding[...] * 6
    pretraining.check_norms(model, SCENES)
