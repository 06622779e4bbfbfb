"""The course of pretraining: every part has its steps, at whatever step the run resumes."""

import pytest

from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.miniworld import lessons, pretraining
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.models.policies import load_policy
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.world import MixtureConfig, PartConfig

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
