"""Intervals and tests, against published values, scipy and mathematical properties."""

import math

import numpy as np
import pytest
import scipy.stats

from mmsearch_jax.evaluation.statistics import (
    agreement,
    bootstrap_interval,
    interval,
    majority,
    paired_difference,
    pass_at_k,
    wilson_interval,
)


def test_wilson_interval_has_the_published_value():
    # Newcombe (1998), table I: 81 of 263 gives .2553 to .3662.
    assert wilson_interval(81, 263) == [pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4)]
    assert wilson_interval(0, 0) == bootstrap_interval([], []) == [0.0, 1.0]


def test_the_bootstrap_agrees_with_scipys_where_each_score_is_its_own_cluster():
    scores = np.random.default_rng(1).random(200)
    ours = bootstrap_interval(scores, range(200))
    theirs = scipy.stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=9999, rng=2).confidence_interval
    assert ours == [pytest.approx(theirs.low, abs=4e-3), pytest.approx(theirs.high, abs=4e-3)]


def test_questions_about_one_image_count_as_one():
    values = list(np.random.default_rng(0).integers(0, 2, 50))
    repeated, images = [v for v in values for _ in range(4)], [i for i in range(50) for _ in range(4)]
    assert bootstrap_interval(repeated, images) == pytest.approx(bootstrap_interval(values, range(50)))
    alone = bootstrap_interval(repeated, range(200))
    clustered = bootstrap_interval(repeated, images)
    assert clustered[1] - clustered[0] > 1.6 * (alone[1] - alone[0])


def test_wilsons_interval_is_taken_for_single_binary_scores_only():
    assert interval([1, 0, 1], "abc") == wilson_interval(2, 3)
    assert interval([1, 0, 1], "aab") == bootstrap_interval([1, 0, 1], "aab")
    assert interval([0.3, 0, 1], "abc") == bootstrap_interval([0.3, 0, 1], "abc")


def test_mcnemar_is_the_exact_two_sided_binomial():
    # Only the second is right on 9 questions, only the first on 1: 2 * (1 + 10) / 2^10.
    first, second = [1] + [0] * 9 + [1] * 5, [0] + [1] * 9 + [1] * 5
    found = paired_difference(first, second, range(15))
    assert (found["only_first"], found["only_second"]) == (1, 9)
    assert found["mcnemar_p"] == pytest.approx(22 / 1024)
    assert found["difference"] == pytest.approx(8 / 15)
    assert found["ci95"][0] > 0
    assert paired_difference(first, first, range(15))["mcnemar_p"] == 1.0


def test_intervals_depend_on_neither_the_order_of_the_samples_nor_the_names_of_the_images():
    rng = np.random.default_rng(3)
    first, second, images = rng.integers(0, 2, 90), rng.integers(0, 2, 90), rng.integers(0, 40, 90)
    found = paired_difference(first, second, images)
    for _ in range(5):
        order = rng.permutation(90)
        renamed = [f"images/{900 - image}.jpg" for image in images[order]]
        assert paired_difference(first[order], second[order], renamed) == found
        assert bootstrap_interval(first[order], renamed) == bootstrap_interval(first, images)


def test_kappa_has_the_textbook_value():
    # 20 both yes, 15 both no, 5 and 10 different: agreement .7, chance agreement .5, kappa .4.
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert agreement(first, second) == {"n": 50, "share": pytest.approx(0.7), "kappa": pytest.approx(0.4)}
    assert agreement([True], [True])["kappa"] == 1.0 and agreement([], []) == {"n": 0, "share": 0.0, "kappa": 0.0}


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    # 5 samples of which 2 are right: 3 of the 10 pairs have none.
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)
    assert pass_at_k(5, 2, 1) == pytest.approx(0.4)
    assert pass_at_k(5, 2, 4) == 1.0 and pass_at_k(5, 0, 5) == 0.0
    assert pass_at_k(200, 3, 10) == pytest.approx(1 - math.prod(1 - 10 / (200 - i) for i in range(3)))


def test_a_majority_is_the_commonest_and_of_equals_the_first():
    assert majority(["b", "a", "c", "a"]) == 1
    assert majority(["b", "a", "a", "b"]) == 0
