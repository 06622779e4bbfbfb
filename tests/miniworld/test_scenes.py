"""Scenes: pictures are where the boxes say and do not overlap, and a phrase identifies one of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch_jax.miniworld import scenes

COLOURS = [(220, 20, 30), (20, 160, 40), (20, 40, 200), (250, 220, 20)]
BACKGROUND = Image.new("RGB", (600, 450), (128, 128, 128))
PICTURES = [
    Image.new("RGB", size, c) for size, c in zip([(320, 240), (300, 200), (200, 320), (440, 200)], COLOURS, strict=True)
]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_each_picture_fills_its_box_and_boxes_do_not_meet(seed, count):
    image, boxes = scenes.compose(PICTURES[:count], BACKGROUND, np.random.default_rng(seed))
    assert image.size == scenes.SIZE and image.mode == "RGB" and len(boxes) == count
    for colour, (x0, y0, x1, y1) in zip(COLOURS, boxes, strict=False):
        assert 0 <= x0 < x1 <= 448 and 0 <= y0 < y1 <= 336 and min(x1 - x0, y1 - y0) >= 56
        inside = np.asarray(image.crop((x0, y0, x1, y1))).reshape(-1, 3)
        assert (np.abs(inside - np.array(colour)).max(1) <= 2).all()
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_no_two_pictures_of_a_scene_share_a_phrase(seed, count):
    _, boxes = scenes.compose(PICTURES[:count], BACKGROUND, np.random.default_rng(seed))
    phrases = [scenes.spatial_phrase(boxes, i) for i in range(count)]
    named = [phrase for phrase in phrases if phrase]
    assert len(set(named)) == len(named) and set(named) <= set(scenes.PHRASES)


def test_most_pictures_can_be_named():
    rng = np.random.default_rng(0)
    named = []
    for count in (2, 3, 4) * 60:
        _, boxes = scenes.compose(PICTURES[:count], BACKGROUND, rng)
        named += [scenes.spatial_phrase(boxes, i) is not None for i in range(count)]
    assert np.mean(named) > 0.95


def _at(x, y):
    return (x - 50, y - 40, x + 50, y + 40)


@pytest.mark.parametrize(
    ("boxes", "phrases"),
    [
        ([_at(100, 168), _at(340, 168)], ["on the left", "on the right"]),
        ([_at(224, 80), _at(224, 250)], ["at the top", "at the bottom"]),
        ([_at(380, 160), _at(70, 160), _at(224, 170)], ["on the right", "on the left", "in the middle"]),
        ([_at(100, 80), _at(340, 80), _at(100, 250)], ["at the top left", "at the top right", "at the bottom left"]),
        ([_at(224, 168)], [None]),
        ([_at(200, 168), _at(240, 168)], [None, None]),
    ],
)
def test_phrases_are_what_a_person_would_say(boxes, phrases):
    assert [scenes.spatial_phrase(boxes, i) for i in range(len(boxes))] == phrases


@pytest.mark.parametrize("seed", range(8))
def test_full_bleed_fills_four_fifths_of_the_frame(seed):
    image, (x0, y0, x1, y1) = scenes.full_bleed(PICTURES[2], np.random.default_rng(seed))
    assert image.size == scenes.SIZE and (x1 - x0) * (y1 - y0) >= 0.8 * 448 * 336


def test_a_scene_depends_on_its_generator_alone():
    first, second = (scenes.compose(PICTURES, BACKGROUND, np.random.default_rng(3)) for _ in range(2))
    assert first[1] == second[1] and first[0].tobytes() == second[0].tobytes()


def test_transparent_parts_become_white():
    clear = Image.new("RGBA", (200, 150), (0, 0, 0, 0))
    image, boxes = scenes.compose([clear], BACKGROUND, np.random.default_rng(1))
    assert (np.asarray(image.crop(boxes[0])) == 255).all()


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_or_too_many_pictures_are_refused(count):
    with pytest.raises(ValueError, match=f"got {count}"):
        scenes.compose([PICTURES[0]] * count, BACKGROUND, np.random.default_rng(0))
