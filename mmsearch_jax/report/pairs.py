"""Two evaluations of one benchmark, question by question: what became right, what became wrong, and whether that is chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from scipy import stats


@dataclasses.dataclass(frozen=True)
class Pair:
    """`first` against `second` on the `n` questions that both answered; `p` is McNemar's exact test (two-sided)."""

    first: str
    second: str
    n: int
    became_right: int
    became_wrong: int
    p: float

    @property
    def points(self) -> float:
        """Difference of accuracy, in percentage points."""
        return 100 * (self.became_right - self.became_wrong) / self.n


def pairs(outcomes: Sequence[tuple[str, Mapping[str, bool]]], main: int) -> list[Pair]:
    """Compares each evaluation with one of them: those before it lead to it, it leads to those after it.

    Args:
      outcomes: label, and by question whether it was answered right.
      main: place of the one that the others are compared with.
    """
    made = []
    for place, _ in enumerate(outcomes):
        (first, before), (second, after) = (outcomes[i] for i in sorted((place, main)))
        common = before.keys() & after.keys()
        if place == main or not common:
            continue
        right = sum(after[key] and not before[key] for key in common)
        wrong = sum(before[key] and not after[key] for key in common)
        p = float(stats.binomtest(right, right + wrong).pvalue) if right + wrong else 1.0
        made.append(Pair(first, second, len(common), right, wrong, p))
    return made
