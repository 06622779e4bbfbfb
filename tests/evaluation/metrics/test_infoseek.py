"""InfoSeek: the examples in its script's comments, and values computed by hand."""

import pytest

from mmsearch_jax.evaluation.metrics.infoseek import exact_match, harmonic_mean, in_range, normalise, parse_numbers


def test_strings_are_equal_without_case_articles_and_punctuation():
    assert normalise("  The  Queen's-Park, a\tplace ") == "queenspark place"
    assert exact_match("the united kingdom.", ["UK", "United Kingdom"])
    assert not exact_match("Kingdom", ["UK", "United Kingdom"])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("9-10", (9.0, 10.0)),
        ("between 5 and 3.5", (5.0,)),
        ("1,204,118 people", (1204118.0,)),
        ("-4.5", (-4.5,)),
        ("1e3", (1000.0,)),
        ("1 2 3", (1.0, 2.0)),
        ("no idea", (0.0, 0.0)),
        ("v1.2.3", (1.2, 0.3)[:1]),
    ],
)
def test_numbers_and_ranges_are_read(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("1.0", True),
        ("0.9", True),
        ("1.11", False),
        ("0.95 to 1.05", True),
        # An overlap of 0.2 in a union of 0.35, then of 0.45.
        ("0.9-1.25", True),
        ("0.9-1.35", False),
        ("none", False),
    ],
)
def test_a_number_lies_in_the_range_and_a_range_overlaps_it_by_half(answer, right):
    assert in_range(answer, [0.9, 1.1]) is right
    assert in_range("100-300", [100, 200]) and not in_range("100-301", [100, 200])


def test_the_splits_come_together_by_their_harmonic_mean():
    assert harmonic_mean([0.25, 0.5]) == pytest.approx(1 / 3)
    assert harmonic_mean([0.0, 0.5]) == 0.0
