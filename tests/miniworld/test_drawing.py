"""Drawn things: one design in two artworks, different for different draws, equal for equal seeds."""

import numpy as np
import pytest
from PIL import Image

from mmsearch_jax.miniworld import colours, drawing, views

DRAWERS = [drawing.draw_emblem, drawing.draw_monument, drawing.draw_animal]


def _thumb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((16, 12), Image.Resampling.BOX), np.float32)


def _num_shades(image: Image.Image) -> int:
    return len(np.unique(np.asarray(image.resize((40, 30), Image.Resampling.NEAREST)).reshape(-1, 3), axis=0))


@pytest.mark.parametrize("draw", DRAWERS)
def test_the_same_generator_draws_the_same_pictures(draw):
    first, second = draw(np.random.default_rng(4)), draw(np.random.default_rng(4))
    assert all(a.mode == "RGB" and a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("draw", DRAWERS)
def test_two_artworks_of_one_thing_are_closer_than_two_things(draw):
    rng = np.random.default_rng(0)
    things = [draw(rng) for _ in range(24)]
    index, scene = (np.stack([_thumb(pair[side]) for pair in things]) for side in (0, 1))
    distances = np.abs(scene[:, None] - index[None]).mean((2, 3, 4))
    assert (np.diag(distances) > 0.5).all()
    assert (distances.argmin(1) == np.arange(24)).mean() >= 0.85


def test_emblems_show_many_colours_and_photographs_few_flat_ones():
    rng = np.random.default_rng(1)
    emblems = [drawing.draw_emblem(rng)[0] for _ in range(200)]
    named = [colours.dominant_colour(emblem) for emblem in emblems]
    assert {"red", "white", "blue", "green", "yellow", "black"} <= {name for name, _ in named}
    assert np.mean([share >= 0.5 for _, share in named]) > 0.2
    monuments = [drawing.draw_monument(rng)[0] for _ in range(10)]
    flat, textured = (np.mean([_num_shades(picture) for picture in kind]) for kind in (emblems, monuments))
    assert flat < 30 and textured > 600


def test_backgrounds_have_the_size_asked_for():
    rng = np.random.default_rng(2)
    assert {drawing.draw_background(rng, (300, 200)).size for _ in range(12)} == {(300, 200)}


def test_every_monument_can_be_drawn_also_with_one_wide_arch():
    for seed in range(600):
        views.monument(np.random.default_rng(seed), (64, 48))
