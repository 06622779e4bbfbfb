"""A step's mini-batches and batches: each sequence once, nearly equal mini-batches, the smallest shape that holds the rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch_jax.data.batch_plan import cut_evenly, fill_of, filled, halved_shapes, plan_batches
from mmsearch_jax.data.batches import TrainingSequence
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.settings.learning import BatchShape

SHAPE = BatchShape(rows=4, length=64, images=4, patches=16)
PLACEHOLDER = 5


def text(length, first=7):
    ids = np.arange(first, first + length, dtype=np.int32)
    return TrainingSequence(ids, np.broadcast_to(ids, (3, length)), np.ones(length, np.float32), (), PLACEHOLDER)


def seen(length, image):
    """A sequence that begins with a text token and the image's placeholders."""
    made = text(length)
    made.token_ids[1 : 1 + len(image.patches) // 4] = PLACEHOLDER
    return TrainingSequence(made.token_ids, made.positions, made.loss_weights, [image], PLACEHOLDER)


def picture(patches):
    return ProcessedImage(np.zeros((patches, 588), np.uint8), (1, 2, patches // 2))


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 9))
def test_mini_batches_are_consecutive_and_differ_by_less_than_the_longest_sequence(lengths, parts):
    cut = cut_evenly(lengths, parts)
    assert [i for part in cut for i in part] == list(range(len(lengths))) and len(cut) == parts
    if lengths:
        tokens = [sum(lengths[i] for i in part) for part in cut]
        assert max(abs(own - sum(lengths) / parts) for own in tokens) <= max(lengths)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(6, 64), st.sampled_from([0, 4, 8, 16])), max_size=40), st.integers(0, 3))
def test_every_sequence_is_in_one_batch_with_its_image(drawn, halvings):
    sequences = [seen(length, picture(patches)) if patches else text(length) for length, patches in drawn]
    shapes = halved_shapes(SHAPE, halvings)
    planned = plan_batches(sequences, shapes)
    assert sorted(place.sequence for one in planned for place in one.places) == list(range(len(sequences)))
    fill = fill_of(filled(sequences, one) for one in planned)
    assert fill.tokens == sum(length for length, _ in drawn)
    assert fill.patches == sum(patches for _, patches in drawn)
    # Only the last batch may be smaller, and nothing smaller would hold it.
    assert all(one.shape == SHAPE for one in planned[:-1])
    if planned and planned[-1].shape in shapes[1:]:
        smaller = shapes[shapes.index(planned[-1].shape) - 1]
        left = [sequences[place.sequence] for place in planned[-1].places]
        assert len(plan_batches(left, [smaller, SHAPE])) > 1 or plan_batches(left, [smaller, SHAPE])[0].shape == SHAPE


def test_a_group_s_image_takes_room_once_and_a_full_row_of_patches_ends_a_batch():
    shared = picture(16)
    group = [seen(12, shared) for _ in range(8)]
    (one,) = plan_batches(group, [SHAPE])
    assert fill_of([filled(group, one)]).patches == 16
    # Short, but each with its own picture: four rows of patches hold four.
    alone = [seen(8, picture(16)) for _ in range(6)]
    assert [len(one.places) for one in plan_batches(alone, [SHAPE])] == [4, 2]


@pytest.mark.parametrize(
    ("shape", "halvings", "parts", "lengths", "images"),
    [
        (BatchShape(8, 12288, 16, 5120), 2, (8, 2), [3072, 6144, 12288], [8, 8, 16]),
        # 6 tokens divide over 2 parts, 3 do not.
        (BatchShape(2, 12, 4, 8), 5, (2, 2), [6, 12], [2, 4]),
        (BatchShape(2, 12, 0, 0), 1, (1, 1), [6, 12], [0, 0]),
        (BatchShape(2, 15, 4, 8), 3, (1, 1), [15], [4]),
    ],
)
def test_smaller_shapes_divide_over_the_mesh(shape, halvings, parts, lengths, images):
    shapes = halved_shapes(shape, halvings, *parts)
    assert [one.length for one in shapes] == lengths and [one.images for one in shapes] == images
    assert {(one.rows, one.patches) for one in shapes} == {(shape.rows, shape.patches)}
    assert shapes[-1] == shape


def test_fill_counts_padding():
    batch = filled([text(16), text(16)], plan_batches([text(16), text(16)], [SHAPE])[0])
    assert fill_of([batch, batch]).shares() == {"fill": 64 / 512, "patch_fill": 0.0}
    assert fill_of([]).shares() == {}
