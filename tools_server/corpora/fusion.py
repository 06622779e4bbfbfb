"""Reciprocal rank fusion of several rankings (Cormack, Clarke, Büttcher: SIGIR 2009)."""

from __future__ import annotations

import collections
from collections.abc import Sequence

K = 60
"""The paper's constant: the larger, the less the first ranks outweigh the next."""


def reciprocal_rank_fusion(rankings: Sequence[Sequence[int]], k: int = K) -> list[tuple[int, float]]:
    """Each item with the sum of 1 / (k + rank) over the rankings that contain it (ranks from 1), best first.

    Of items with equal sums, the one from an earlier ranking comes first.
    """
    scores: dict[int, float] = collections.defaultdict(float)
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] += 1.0 / (k + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])
