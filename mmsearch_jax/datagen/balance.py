"""Selects the set from the finished conversations: nearly uniform over categories, with a given search share."""

from __future__ import annotations

import collections
import random
from collections.abc import Sequence
from typing import NamedTuple


class BalanceCandidate(NamedTuple):
    """The fields of a finished conversation that decide the choice."""

    id: str
    category: str
    search_required: bool


def choose(candidates: Sequence[BalanceCandidate], size: int, search_share: float, seed: int) -> list[BalanceCandidate]:
    """A balanced selection, in the candidates' order.

    The share has priority: if there are too few search-required (or search-free) candidates, the set is smaller. Within
    each of the two groups, categories contribute equally until they are used up.

    Args:
      size: the largest number to select; 0: the largest number that the share allows.
      search_share: share of search-required conversations, in [0, 1].
    """
    required = [c for c in candidates if c.search_required]
    free = [c for c in candidates if not c.search_required]
    most = size or len(candidates)
    if search_share > 0:
        most = min(most, int(len(required) / search_share + 1e-9))
    if search_share < 1:
        most = min(most, int(len(free) / (1 - search_share) + 1e-9))
    num_required = min(len(required), round(most * search_share))
    num_free = min(len(free), most - num_required)
    chosen = {*_uniform(required, num_required, seed), *_uniform(free, num_free, seed)}
    return [candidate for candidate in candidates if candidate in chosen]


def _uniform(candidates: Sequence[BalanceCandidate], count: int, seed: int) -> list[BalanceCandidate]:
    piles: dict[str, list[BalanceCandidate]] = collections.defaultdict(list)
    for candidate in candidates:
        piles[candidate.category].append(candidate)
    names = sorted(piles)
    shuffler = random.Random(seed)
    for name in names:
        shuffler.shuffle(piles[name])
    # Takes one candidate of each category per round. The random order only matters in an incomplete last round.
    shuffler.shuffle(names)
    longest = max(map(len, piles.values()), default=0)
    dealt = [piles[name][turn] for turn in range(longest) for name in names if turn < len(piles[name])]
    return dealt[:count]
