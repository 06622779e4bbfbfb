"""Intervals, tests and estimators over scores: pure functions of numbers."""

from __future__ import annotations

import collections
import math
from collections.abc import Hashable, Sequence

import numpy as np
import scipy.stats

RESAMPLES = 2000
_SEED = 0


def share(part: float, whole: int) -> float:
    """part / whole; 0 if whole is 0."""
    return part / whole if whole else 0.0


def mean(values: Sequence[float]) -> float:
    """The mean; 0 without values."""
    return share(math.fsum(values), len(values))


def wilson_interval(right: float, count: int, z: float = 1.959964) -> list[float]:
    """Wilson's 95 % interval of a share (Wilson, 1927); [0, 1] if count is 0."""
    if count == 0:
        return [0.0, 1.0]
    portion = right / count
    centre = portion + z * z / (2 * count)
    spread = z * math.sqrt(portion * (1 - portion) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return [max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)]


def bootstrap_interval(scores: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """The percentile bootstrap's 95 % interval of a mean; draws whole clusters (Efron, 1979; Cameron et al., 2008).

    Args:
      clusters: the cluster (image) of each score; questions on the same image are not independent.
    """
    if not len(scores):
        return [0.0, 1.0]
    return _percentiles(_resampled_means(np.asarray(scores, np.float64), clusters))


def interval(scores: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """Wilson's interval if each score is 0 or 1 and has its own cluster, else the bootstrap's."""
    if len(set(clusters)) == len(scores) and all(score in (0, 1) for score in scores):
        return wilson_interval(math.fsum(scores), len(scores))
    return bootstrap_interval(scores, clusters)


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable]
) -> dict[str, float | list[float]]:
    """Second minus first over the same questions: the difference of means, its bootstrap interval, and McNemar's exact p.

    McNemar (1947), two-sided. Null hypothesis: of the questions that exactly one run has right (a score of at least
    0.5), each run has half.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    rights = [(a >= 0.5, b >= 0.5) for a, b in zip(first, second, strict=True)]
    only_first, only_second = rights.count((True, False)), rights.count((False, True))
    discordant = only_first + only_second
    p = float(scipy.stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return {
        "n": len(differences),
        "difference": float(differences.mean()),
        "ci95": _percentiles(_resampled_means(differences, clusters)),
        "only_first": only_first,
        "only_second": only_second,
        "mcnemar_p": p,
    }


def agreement(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """Share of equal verdicts, and Cohen's kappa (1960): 1 is full agreement, 0 is agreement by chance."""
    count = len(first)
    equal = share(sum(a == b for a, b in zip(first, second, strict=True)), count)
    yes = share(sum(first), count), share(sum(second), count)
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    # If both give the same single verdict everywhere, kappa is 0 / 0, and the agreement is full.
    kappa = (equal - chance) / (1 - chance) if chance < 1 else 1.0
    return {"n": count, "share": equal, "kappa": kappa if count else 0.0}


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased estimate that one of k samples is right: 1 - C(n - c, k) / C(n, k) (Chen et al., 2021)."""
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def majority(votes: Sequence[Hashable]) -> int:
    """The first index of the most common vote; in a tie, the vote that comes first wins."""
    counts = collections.Counter(votes)
    return votes.index(max(counts, key=lambda vote: counts[vote]))


def _resampled_means(scores: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """The means of the resamples, [RESAMPLES]; deterministic, and the same in any order and with any names of clusters."""
    names = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    member = np.asarray([names[cluster] for cluster in clusters])
    sums, sizes = np.bincount(member, scores), np.bincount(member)
    # Reports and comparisons read the same samples in different orders, and must state the same interval.
    order = np.lexsort((sizes, sums))
    sums, sizes = sums[order], sizes[order]
    rng = np.random.default_rng(_SEED)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(len(names), size=len(names))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    return means


def _percentiles(means: np.ndarray) -> list[float]:
    return [float(edge) for edge in np.percentile(means, (2.5, 97.5))]
