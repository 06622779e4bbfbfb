"""Colours have their everyday names."""

import pytest
from PIL import Image

from mmsearch_jax.miniworld import colours


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((206, 17, 38), "red"),
        ((138, 21, 56), "red"),
        ((255, 136, 30), "orange"),
        ((252, 209, 22), "yellow"),
        ((0, 122, 61), "green"),
        ((0, 35, 149), "blue"),
        ((0, 0, 60), "blue"),
        ((108, 172, 228), "blue"),
        ((116, 172, 223), "blue"),
        ((110, 40, 130), "purple"),
        ((120, 70, 20), "brown"),
        ((8, 8, 10), "black"),
        ((250, 250, 248), "white"),
        ((128, 128, 130), "grey"),
    ],
)
def test_a_shade_has_its_usual_name(rgb, name):
    assert colours.dominant_colour(Image.new("RGB", (8, 8), rgb))[0] == name


def test_the_dominant_colour_of_a_region_ignores_what_lies_outside_it():
    image = Image.new("RGB", (200, 200), (0, 0, 200))
    image.paste((220, 20, 30), (50, 50, 150, 110))
    image.paste((250, 250, 250), (50, 110, 150, 130))
    name, share = colours.dominant_colour(image, (50, 50, 150, 130))
    assert name == "red" and share == pytest.approx(0.75, abs=0.03)
    assert colours.dominant_colour(image)[0] == "blue"
