"""Labels of image tokens, against a scene whose pixels are set by hand."""

import numpy as np
import pytest

from mmsearch_jax.miniworld import colours, dense_labels, distortions
from mmsearch_jax.miniworld.dense_labels import Pixels

RED, BLUE, WHITE = (200, 20, 20), (20, 20, 200), (255, 255, 255)
TOKEN = 28


@pytest.fixture
def scene():
    """Two pictures on white: a red flag in tokens 0 and 1 of the upper row, a blue animal in the last tokens of both rows."""
    image = np.full((56, 168, 3), WHITE, np.uint8)
    image[0:28, 0:56] = RED
    image[0:56, 140:168] = BLUE
    return Pixels(image, ("flag", "animal"), np.array([[0, 0, 56, 28], [140, 0, 168, 56]], np.float32))


def test_tokens_know_the_picture_that_they_belong_to(scene):
    labels = dense_labels.label(scene, TOKEN)
    names = [dense_labels.KINDS[kind] for kind in labels.kind]
    upper, lower = names[:6], names[6:]
    assert upper == ["flag", "flag", "background", "background", "background", "animal"]
    assert lower == ["background"] * 5 + ["animal"]
    assert labels.inside.tolist() == [float(name != "background") for name in names]
    at = {name: [i for i, each in enumerate(names) if each == name] for name in set(names)}
    assert {colours.NAMES[i] for i in labels.colour[at["flag"]]} == {"red"}
    assert {colours.NAMES[i] for i in labels.colour[at["animal"]]} == {"blue"}
    assert {dense_labels.PLACES[i] for i in labels.place[at["flag"]]} == {"on the left"}
    assert {dense_labels.PLACES[i] for i in labels.place[at["animal"]]} == {"on the right"}
    assert set(labels.num_pictures) == {1}
    assert set(labels.num_flags) == {1}


def test_boxes_are_relative_to_the_token(scene):
    labels = dense_labels.label(scene, TOKEN)
    # Token 1 has its centre at x = 42, y = 14; half the width is 84 pixels.
    np.testing.assert_allclose(labels.edges[1] * 84, [-42, -14, 14, 14], atol=1e-4)
    np.testing.assert_allclose(labels.centre[11], [154 / 168, 28 / 56], atol=1e-6)


def test_colours_of_a_token_are_those_of_its_pixels(scene):
    scene.image[28:56, 0:14] = RED
    labels = dense_labels.label(scene, TOKEN)
    half = {colours.NAMES[i]: float(share) for i, share in enumerate(labels.shares[6]) if share}
    assert half == {"red": 0.5, "white": 0.5}
    np.testing.assert_allclose(labels.shares.sum(1), 1)


def test_a_picture_smaller_than_a_token_keeps_one():
    small = Pixels(np.full((56, 56, 3), WHITE, np.uint8), ("flag",), np.array([[24, 24, 34, 32]], np.float32))
    assert dense_labels.label(small, TOKEN).inside.sum() >= 1


def test_a_picture_of_many_colours_has_no_main_colour(scene):
    scene.image[0:28, 0:56:4] = WHITE
    scene.image[0:28, 1:56:4] = WHITE
    scene.image[0:10, 0:56] = BLUE
    scene.image[10:19, 0:56] = WHITE
    scene.image[19:28, 0:56] = RED
    assert dense_labels.label(scene, TOKEN).has_colour[:2].tolist() == [0, 0]


def test_a_distorted_scene_keeps_its_boxes_around_the_same_things(scene):
    left = set()
    for seed in range(20):
        changed = distortions.distort(np.random.default_rng(seed), scene)
        assert changed.image.dtype == np.uint8
        x0, y0, x1, y1 = changed.boxes[0].astype(int)
        inside = changed.image[y0:y1, x0:x1].astype(int).mean((0, 1))
        background = changed.image[30:50, 64:100].astype(int).mean((0, 1))
        # White has all three channels, red only one of them, in whatever order.
        assert sorted(inside)[1] < 0.6 * sorted(background)[1], seed
        left.add(bool(x0 < 50))
    assert left == {True, False}
    assert scene.boxes[0].tolist() == [0, 0, 56, 28]
