"""InfoSeek's metric (Chen et al., 2023): exact match over aliases, ranges for numbers, harmonic mean of its two splits.

Source: the official evaluation (github.com/edchengg/infoseek_eval, infoseek_eval.py). Times are matched as strings;
their aliases already include the neighbouring years.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

UNSEEN_QUESTION, UNSEEN_ENTITY = "unseen_question", "unseen_entity"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"[-+]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_DASH_IN_RANGE = re.compile(r"(?<=\d)-")
_TINY = 1e-12


def normalise(text: str) -> str:
    """Lower-cases; removes ASCII punctuation, articles and extra white space (as in SQuAD).

    >>> normalise("The Côte d'Ivoire!")
    'côte divoire'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether the normalised answer equals a normalised alias."""
    spoken = normalise(answer)
    return any(normalise(gold) == spoken for gold in golds)


def parse_numbers(text: str) -> tuple[float, ...]:
    """The number in a text, or the two numbers of a range; (0, 0) if there is none, as in the source.

    >>> parse_numbers("about 1,200-1,500 m")
    (1200.0, 1500.0)
    """
    found = [number.replace(",", "") for number in _NUMBER.findall(_DASH_IN_RANGE.sub(" - ", text))]
    values = tuple(float(number) for number in found[:2])
    if not values:
        return (0.0, 0.0)
    return values if len(values) == 1 or values[0] <= values[1] else values[:1]


def in_range(answer: str, span: Sequence[float]) -> bool:
    """Whether an answer's number lies in the gold range, or its range lies in it or overlaps it with an IoU >= 0.5.

    Args:
      span: lowest and highest accepted value.
    """
    low, high = span
    numbers = parse_numbers(answer)
    if all(low <= number <= high for number in numbers):
        return True
    if len(numbers) == 1:
        return False
    overlap = max(0.0, min(numbers[1], high) - max(numbers[0], low))
    union = (numbers[1] - numbers[0]) + (high - low) - overlap
    return overlap / (union + 2 * _TINY) >= 0.5 - _TINY


def harmonic_mean(shares: Sequence[float]) -> float:
    """n / sum(1 / share); 0 if a share is 0."""
    return len(shares) / sum(1 / share for share in shares) if all(shares) else 0.0
