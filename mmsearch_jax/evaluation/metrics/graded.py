"""SimpleVQA's F-score over three grades: correct, incorrect, not attempted.

Source: SimpleVQA (Cheng et al., 2025), after SimpleQA (Wei et al., 2024): the harmonic mean of the correct share of all
answers and the correct share of attempted ones. "I do not know" scores better than a wrong guess.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

CORRECT, INCORRECT, NOT_ATTEMPTED = "correct", "incorrect", "not_attempted"


def f_score(grades: Sequence[str]) -> dict[str, float]:
    """Shares of the grades, `correct_given_attempted` and `f_score`; all are 0 without grades."""
    counts, total = collections.Counter(grades), max(len(grades), 1)
    shares = {grade: counts[grade] / total for grade in (CORRECT, INCORRECT, NOT_ATTEMPTED)}
    attempted = counts[CORRECT] + counts[INCORRECT]
    given_attempted = counts[CORRECT] / attempted if attempted else 0.0
    both = shares[CORRECT] + given_attempted
    score = 2 * shares[CORRECT] * given_attempted / both if both else 0.0
    return {**shares, "correct_given_attempted": given_attempted, "f_score": score}
