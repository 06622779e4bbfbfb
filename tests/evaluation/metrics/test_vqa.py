"""VQA accuracy: values of the official formula computed by hand, and its normalisation."""

import pytest

from mmsearch_jax.evaluation.metrics.vqa import (
    chosen,
    direct_answer_accuracy,
    multiple_choice_accuracy,
    normalise,
    vqa_accuracy,
)


@pytest.mark.parametrize(("matching", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_leaving_each_annotator_out_gives_the_published_steps(matching, accuracy):
    given = ["surfing"] * matching + [f"other {i}" for i in range(10 - matching)]
    assert vqa_accuracy("Surfing.", given) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Two dogs", "2 dogs"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("black/white", "black white"),
        ("black, white", "black white"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("a\nb\tc", "b c"),
        ("well-known", "well known"),
        ("o'clock", "o'clock"),
        ("Yes!", "yes"),
    ],
)
def test_normalisation_is_the_official_one(text, normal):
    assert normalise(text) == normal


def test_direct_answers_need_three_who_agree():
    given = ["cat"] * 2 + ["Dog."] * 7 + ["bird"]
    assert direct_answer_accuracy("dog", given) == 1.0
    assert direct_answer_accuracy("a cat", given) == pytest.approx(2 / 3)
    assert direct_answer_accuracy("fish", given) == 0.0


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("the bus", 1),
        ("B", 1),
        ("(b)", 1),
        ("B. bus", 1),
        ("b) the bus", 1),
        ("C: car", None),
        ("E", None),
        ("a bus or a tram", None),
    ],
)
def test_a_choice_is_named_by_text_or_letter(answer, index):
    choices = ["tram", "bus", "train", "bicycle"]
    assert chosen(answer, choices) == index
    assert multiple_choice_accuracy(answer, choices, 1) == float(index == 1)
