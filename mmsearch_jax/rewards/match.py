"""The rule-based judge: decides whether an answer matches a gold answer.

The whole answer is compared, never a part of it: an answer that lists candidates or adds words never matches. Three kinds are
told apart: dates (`dates`), numbers with units from a closed list (`quantities`), and names (`text_keys`). Two answers of the
first kinds are compared by value, all others by their keys. The rules are our own; the metrics of published benchmarks are
`evaluation/metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmsearch_jax.rewards.dates import date
from mmsearch_jax.rewards.quantities import quantity, same_quantity
from mmsearch_jax.rewards.text_keys import normalise

MAX_ANSWER_CHARS = 200
"""Longest answer in characters that can match, unless the gold answer is as long."""


def matches(answer: str | None, answers: Iterable[str]) -> bool:
    """Whether `answer` matches any of `answers` (gold answer and aliases)."""
    if answer is None or not answer.strip():
        return False
    return any(_same(answer, gold) for gold in answers)


def _same(answer: str, gold: str) -> bool:
    if len(answer) > max(MAX_ANSWER_CHARS, 2 * len(gold)):
        return False
    one, other = date(answer), date(gold)
    left, right = quantity(answer), quantity(gold)
    if one is not None and other is not None:
        return one == other
    if left is not None and right is not None:
        return same_quantity(left, right)
    for day, number in ((one, right), (other, left)):
        if day is not None and number is not None and day.month is None:
            # A year of our era may lack the era.
            return not number.kind and number.value == day.year
    spoken, wanted = normalise(answer), normalise(gold)
    return bool(wanted) and spoken == wanted
