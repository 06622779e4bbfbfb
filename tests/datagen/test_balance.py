"""The selection of a balanced set, checked against the properties of any such selection."""

import collections
import random

import pytest

from mmsearch_jax.datagen.balance import BalanceCandidate, choose


def candidates(counts):
    """counts: {(category, search_required): how many}."""
    return [BalanceCandidate(f"{c}-{r}-{i}", c, r) for (c, r), n in counts.items() for i in range(n)]


def test_half_and_half_and_uniform_over_categories():
    pool = candidates({("a", True): 100, ("b", True): 5, ("c", True): 40, ("a", False): 60, ("b", False): 60})
    chosen = choose(pool, 60, 0.5, 0)
    counts = collections.Counter((c.category, c.search_required) for c in chosen)
    # 30 from three categories would be 10 each; b has only 5, and the others share the rest.
    assert counts["b", True] == 5 and {counts["a", True], counts["c", True]} == {12, 13}
    assert counts["a", False] == counts["b", False] == 15 and len(set(chosen)) == 60
    assert chosen == choose(pool, 60, 0.5, 0) != choose(pool, 60, 0.5, 1)


def test_the_share_holds_where_one_side_is_short():
    pool = candidates({("a", True): 3, ("a", False): 100})
    assert collections.Counter(c.search_required for c in choose(pool, 50, 0.5, 0)) == {True: 3, False: 3}
    assert collections.Counter(c.search_required for c in choose(pool, 50, 0.0, 0)) == {False: 50}
    assert collections.Counter(c.search_required for c in choose(pool, 0, 1.0, 0)) == {True: 3}
    assert choose([], 10, 0.5, 0) == [] and choose(pool[3:], 10, 0.5, 0) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_category_gets_less_than_another_while_it_has_any(seed):
    rng = random.Random(seed)
    pool = candidates({(c, r): rng.randrange(30) for c in "abcd" for r in (True, False)})
    size, share = rng.randrange(1, 80), rng.choice([0.25, 0.5, 0.75])
    chosen = choose(pool, size, share, seed)
    assert len(chosen) <= size
    for side in (True, False):
        had = collections.Counter(c.category for c in pool if c.search_required is side)
        got = collections.Counter(c.category for c in chosen if c.search_required is side)
        assert all(got[c] == had[c] or got[c] >= max(got.values(), default=0) - 1 for c in had)
    required = sum(c.search_required for c in chosen)
    assert abs(required - share * len(chosen)) <= 1
