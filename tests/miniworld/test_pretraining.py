"""The course of pretraining: every part has its steps, at whatever step the run resumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.miniworld import lessons, pretraining, tower
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.models.policies import load_policy
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.world import (
    CourseConfig,
    MixtureConfig,
    PartConfig,
    PretrainSettings,
    TinyTextConfig,
    TinyVisionConfig,
    TowerConfig,
)

PARTS = [PartConfig(3, MixtureConfig(echo=1.0)), PartConfig(2, MixtureConfig(looking=1.0))]
SHAPE = BatchShape(4, 512, 6, 192)


@pytest.fixture(scope="module")
def batches():
    policy = load_policy("assets/tiny-base")
    processor = ImageProcessor(min_pixels=56 * 56, max_pixels=224 * 168)
    pool = lessons.scene_pool(GeneratedWorld(24, 0), processor, range(8), 0)
    builder = lessons.LessonBuilder(ChatRenderer(policy.tokenizer), policy.model.config)
    return pretraining._batches(builder, pool, SHAPE, PARTS, seed=0)


def with_images(batch):
    return bool((batch.feature_index >= 0).any())


def test_parts_follow_one_another(batches):
    assert [with_images(batch) for batch, _, _ in batches(0, None)] == [False, False, False, True, True]


@pytest.mark.parametrize(("start", "expected"), [(2, [False, True, True]), (3, [True, True]), (4, [True]), (5, [])])
def test_a_run_is_taken_up_in_the_middle(batches, start, expected):
    assert [with_images(batch) for batch, _, _ in batches(start, None)] == expected


@pytest.mark.slow
def test_a_base_is_made_whose_tower_the_courses_leave_alone(tmp_path, monkeypatch):
    towers = []

    def kept(*arguments):
        towers.append(train_tower(*arguments))
        return towers[-1]

    train_tower = tower.train_tower
    monkeypatch.setattr(tower, "train_tower", kept)
    text = TinyTextConfig(hidden_size=48, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                          num_key_value_heads=1, mrope_section=(4, 4, 4))  # fmt: skip
    vision = TinyVisionConfig(1, 16, 16, 2, 48, (0,))
    parts = {"part_1": PartConfig(2, MixtureConfig(describing=1.0, echo=1.0))}
    course = CourseConfig(parts, batch=BatchShape(2, 256, 4, 192))
    settings = PretrainSettings(text=text, vision=vision, tower=TowerConfig(2, 2),
                                courses={"course_1": course}, num_scenes=8, world_size=12)  # fmt: skip
    pretraining.make_base(settings, tmp_path / "base", tmp_path / "work", {}, show_progress=False)
    base = load_policy(tmp_path / "base").model
    for made, saved in zip(*(jax.tree.leaves(nnx.state(each)) for each in (towers[0], base.vision)), strict=True):
        np.testing.assert_array_equal(np.asarray(made.astype(jnp.bfloat16), np.float32), np.asarray(saved, np.float32))
