"""Reciprocal rank fusion against sums computed by hand."""

from __future__ import annotations

import pytest

from tools_server.corpora.fusion import reciprocal_rank_fusion


def test_an_item_gets_one_over_k_and_its_rank_from_every_ranking_that_holds_it():
    fused = reciprocal_rank_fusion([[7, 8, 9], [9, 7]])
    assert [item for item, _ in fused] == [7, 9, 8]
    assert [score for _, score in fused] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])


def test_a_small_k_lets_the_first_place_win_over_two_middle_ones():
    rankings = [[1, 2, 3], [4, 2, 5]]
    assert reciprocal_rank_fusion(rankings, k=60)[0][0] == 2
    assert reciprocal_rank_fusion([[1, 0, 2], [3, 0, 2]], k=0) == [
        (1, 1.0),
        (0, 1.0),
        (3, 1.0),
        (2, pytest.approx(2 / 3)),
    ]


def test_nothing_is_fused_to_nothing():
    assert reciprocal_rank_fusion([[], []]) == []
