"""The choice among a detector's boxes, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch_jax.core.errors import ConfigError
from tools_server.grounders.choose import Detections, choose
from tools_server.grounders.grounder import NOT_FOUND, NOT_SEARCHED
from tools_server.settings.detection import DetectionRules

SIZE = (200, 100)
EXACT = DetectionRules(padding=0.0)


def found(*scored: tuple[tuple[float, float, float, float], float]) -> Detections:
    return Detections(np.array([box for box, _ in scored], float).reshape(-1, 4), np.array([s for _, s in scored]))


def test_the_best_is_the_region_and_the_others_are_listed_best_first():
    grounding = choose(found(((0, 0, 20, 20), 0.4), ((50, 0, 90, 40), 0.9), ((100, 0, 120, 20), 0.6)), SIZE, EXACT)
    assert grounding.box == (50, 0, 90, 40)
    assert grounding.others == ((100, 0, 120, 20), (0, 0, 20, 20))
    assert grounding.note is None


def test_the_threshold_itself_is_enough_and_below_it_is_not():
    rules = DetectionRules(padding=0.0, box_threshold=0.5)
    assert choose(found(((0, 0, 20, 20), 0.5)), SIZE, rules).box == (0, 0, 20, 20)
    assert choose(found(((0, 0, 20, 20), 0.499)), SIZE, rules).box is None


def test_padding_is_a_share_of_the_boxs_own_sides_on_each_side():
    # 40 wide and 20 high: 10 and 5 pixels on each side.
    assert choose(found(((80, 40, 120, 60), 0.9)), SIZE, DetectionRules(padding=0.25)).box == (70, 35, 130, 65)


def test_padding_ends_at_the_images_edge():
    assert choose(found(((10, 5, 190, 95), 0.9)), SIZE, DetectionRules(padding=0.5)).box == (0, 0, 200, 100)


def test_fractions_of_pixels_are_rounded_outwards():
    assert choose(found(((10.4, 20.6, 30.2, 41.0), 0.9)), SIZE, EXACT).box == (10, 20, 31, 41)


def test_what_lies_outside_of_the_image_is_cut_off():
    assert choose(found(((-30, -5, 60, 400), 0.9)), SIZE, EXACT).box == (0, 0, 60, 100)
    assert choose(found(((300, 10, 400, 50), 0.9)), SIZE, EXACT).box is None


def test_reversed_corners_name_the_same_region():
    assert choose(found(((60, 50, 20, 10), 0.9)), SIZE, EXACT).box == (20, 10, 60, 50)


@pytest.mark.parametrize("lie", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_is_passed_over(lie: float):
    grounding = choose(found(((lie, 0, 50, 50), 0.99), ((0, 0, 30, 30), lie), ((5, 5, 25, 25), 0.5)), SIZE, EXACT)
    assert (grounding.box, grounding.others) == ((5, 5, 25, 25), ())


def test_a_detection_with_a_side_that_is_too_short_is_passed_over_before_it_is_padded():
    rules = DetectionRules(min_side=10, padding=1.0)
    assert choose(found(((0, 0, 50, 9), 0.9), ((60, 0, 70, 10), 0.8)), SIZE, rules).box == (50, 0, 80, 20)


def test_doubles_of_a_better_one_are_not_listed():
    # Shares 90 x 50 with the first: 4,500 / 5,500 = 0.82; the third shares 50 x 50: 2,500 / 7,500 = 0.33.
    grounding = choose(found(((0, 0, 100, 50), 0.9), ((10, 0, 110, 50), 0.8), ((50, 0, 150, 50), 0.7)), SIZE, EXACT)
    assert grounding.others == ((50, 0, 150, 50),)


def test_no_more_others_are_listed_than_asked_for():
    many = found(*(((20 * i, 0, 20 * i + 20, 20), 0.9 - i / 100) for i in range(8)))
    assert choose(many, SIZE, DetectionRules(padding=0.0, max_others=2)).others == ((20, 0, 40, 20), (40, 0, 60, 20))
    assert choose(many, SIZE, DetectionRules(padding=0.0, max_others=0)).others == ()


def test_equal_scores_keep_the_detectors_order():
    assert choose(found(((40, 0, 60, 20), 0.9), ((0, 0, 20, 20), 0.9)), SIZE, EXACT).box == (40, 0, 60, 20)


def test_without_a_detection_the_whole_image_is_searched_and_said_so():
    grounding = choose(found(), SIZE, EXACT)
    assert (grounding.box, grounding.note, grounding.search_whole) == (None, NOT_FOUND, True)


def test_without_a_detection_nothing_is_searched_where_the_config_says_so():
    grounding = choose(found(), SIZE, DetectionRules(fallback="no_search"))
    assert (grounding.box, grounding.note, grounding.search_whole) == (None, NOT_SEARCHED, False)


def test_a_hundred_thousand_boxes_are_no_trouble():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-1e6, 1e6, (100_000, 4))
    grounding = choose(Detections(boxes, rng.uniform(0, 1, 100_000)), SIZE, EXACT)
    assert grounding.box is not None
    assert len(grounding.others) <= EXACT.max_others


@given(
    st.lists(st.tuples(st.tuples(*[st.floats()] * 4), st.floats()), max_size=20),
    st.tuples(st.integers(8, 500), st.integers(8, 500)),
    st.floats(0, 10),
)
def test_whatever_a_detector_says_boxes_are_whole_and_inside(boxes, size, padding):
    grounding = choose(found(*boxes), size, DetectionRules(padding=padding))
    for box in filter(None, (grounding.box, *grounding.others)):
        x0, y0, x1, y1 = box
        assert all(isinstance(value, int) for value in box)
        assert 0 <= x0 <= x1 - 8 and x1 <= size[0]
        assert 0 <= y0 <= y1 - 8 and y1 <= size[1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"box_threshold": 1.5}, "box_threshold is 1.5: must be at most 1"),
        ({"text_threshold": -0.1}, "text_threshold"),
        ({"padding": float("nan")}, "padding takes a number, got nan"),
        ({"min_side": 0}, "min_side is 0: must be at least 1"),
        ({"fallback": "guess"}, "use whole_image or no_search"),
    ],
)
def test_a_rule_out_of_range_is_said_so(changed, words):
    with pytest.raises(ConfigError, match=words):
        DetectionRules(**changed)
