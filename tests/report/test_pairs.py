"""Comparison of evaluations question by question."""

import pytest

from mmsearch_jax.report.pairs import ScoredSamples, pairs


def scored(**outcomes: float) -> list[ScoredSamples]:
    return [ScoredSamples(question, f"{question}.jpg", score) for question, score in outcomes.items()]


def test_what_changed_is_counted_on_common_questions_with_the_exact_test():
    before = scored(**dict.fromkeys("abcde", 0.0), **dict.fromkeys("fghijk", 1.0), only_here=1.0)
    after = scored(**dict.fromkeys("abcde", 1.0), f=0.0, **dict.fromkeys("ghijk", 1.0))
    (pair,) = pairs([("sft", before), ("grpo", after)], main=1)
    assert (pair.first, pair.second, pair.n, pair.became_right, pair.became_wrong) == ("sft", "grpo", 11, 5, 1)
    # 2 * (C(6, 0) + C(6, 1)) / 2 ** 6
    assert pair.p == pytest.approx(14 / 64) and pair.difference == pytest.approx(4 / 11)
    assert pair.ci95[0] < pair.difference < pair.ci95[1]


def test_several_samples_of_a_question_count_as_one():
    twice = [ScoredSamples("a", "a.jpg", 1.0), ScoredSamples("a", "a.jpg", 0.0)]
    (pair,) = pairs([("once", scored(a=1.0)), ("twice", twice)], main=1)
    assert (pair.n, pair.difference) == (1, -0.5)


def test_each_is_compared_with_the_main_one_in_the_order_of_the_table():
    right = scored(a=1.0)
    made = pairs([("direct", right), ("grpo", right), ("no_crop", right), ("other", scored(z=1.0))], main=1)
    assert [(pair.first, pair.second) for pair in made] == [("direct", "grpo"), ("grpo", "no_crop")]
