"""Grounding: the region that an expression means, and expressions that it cannot resolve."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.grounding import iou, measure
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.real import RealWorld
from tests.tools_server.small_corpus import scene
from tools_server.toy_vision.grounding import COLOURS, colour_shares, ground, parse
from tools_server.toy_vision.proposals import find_pictures

SCENE, BOXES = scene("Flag of Velmora", "Flag of New Velmora")


def test_framed_pictures_are_found_without_their_frames():
    found = [proposal.box for proposal in find_pictures(SCENE)]
    assert len(found) == 2
    assert all(iou(a, b) > 0.95 for a, b in zip(found, BOXES, strict=True))


def test_boxes_are_in_pixels_of_the_image_that_was_sent():
    twice = SCENE.resize((SCENE.width * 2, SCENE.height * 2), Image.Resampling.NEAREST)
    found = ground(twice, "the flag on the right").box
    assert found is not None
    assert iou(found, tuple(2 * v for v in BOXES[1])) > 0.9  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        ("the flag on the left", 0),
        ("Flag on the RIGHT.", 1),
        ("leftmost picture", 0),
        ("the flag with blue", 0),
        ("the green flag", 1),
        ("the emblem at the right side", 1),
    ],
)
def test_words_of_place_and_colour_choose_the_region(expression: str, number: int):
    found = ground(SCENE, expression)
    assert found.box is not None
    assert iou(found.box, BOXES[number]) > 0.9
    assert found.note is None


def test_the_middle_is_among_the_pictures():
    image = Image.new("RGB", (448, 336), (90, 110, 120))
    boxes = [(10, 100, 130, 190), (150, 110, 270, 200), (300, 100, 430, 190)]
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        image.paste((248, 248, 246), (x0 - 3, y0 - 3, x1 + 3, y1 + 3))
        image.paste((200 - 80 * i, 30, 40 + 60 * i), (x0, y0, x1, y1))
    found = ground(image, "the flag in the middle").box
    assert found is not None
    assert iou(found, boxes[1]) > 0.9


@pytest.mark.parametrize("expression", ["", "xyzzy", "der Adler"])
def test_words_that_say_nothing_are_not_guessed_at(expression: str):
    found = ground(SCENE, expression)
    assert found.box is None
    assert found.note


@pytest.mark.parametrize("size", [(448, 336), (8, 8), (30, 400), (2000, 20)])
def test_an_image_without_framed_pictures_has_no_region(size: tuple[int, int]):
    found = ground(Image.new("RGB", size, (90, 110, 120)), "the flag on the left")
    assert found.box is None
    assert found.note


def test_expressions_are_read_by_their_words():
    wanted = parse("the largest gray monument at the top left")
    assert wanted.direction == (-1.0, -1.0)
    assert (wanted.size, wanted.colours, wanted.flag, wanted.middle) == (1, ("grey",), False, False)


@pytest.mark.parametrize(
    ("rgb", "name"), [((200, 16, 30), "red"), ((250, 250, 250), "white"), ((20, 60, 160), "blue"), ((8, 8, 8), "black")]
)
def test_colour_shares_name_plain_colours(rgb: tuple[int, int, int], name: str):
    shares = colour_shares(np.full((4, 4, 3), rgb, np.uint8))
    assert shares[COLOURS.index(name)] == 1.0


@pytest.mark.parametrize("world", [RealWorld(), GeneratedWorld(20, seed=1)])
def test_expressions_on_composed_scenes_are_grounded(world: RealWorld | GeneratedWorld):
    figures = measure(world, num_scenes=25)
    assert figures["all"]["n"] > 40
    assert figures["all"]["mean_iou"] >= 0.9
    assert figures["all"]["accuracy@.5"] >= 0.93
