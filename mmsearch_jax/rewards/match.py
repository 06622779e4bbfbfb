"""The rule-based judge: decides whether an answer matches a gold answer.

Whole strings are compared after normalisation, never by containment, so an answer that lists candidates never matches.
Numbers are compared by value, and with their units if both sides have one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

MAX_ANSWER_CHARS = 200
"""Longest answer in characters that can match, unless the gold answer is as long."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_APOSTROPHES = re.compile(r"['’`´ʼ]")
_HEDGES = re.compile(r"^(?:about|approximately|approx|around|roughly|nearly|circa|ca|c\.|~|≈)[\s.]*", re.IGNORECASE)
_WORDS = {
    word: str(value)
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_SCALE_SPELLINGS = {"k": "thousand", "mn": "million", "mio": "million", "bn": "billion", "tn": "trillion"}
_NUMBER = re.compile(
    r"(?P<currency>[$€£¥]?)\s*(?P<sign>[-+−–]?)\s*"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3}){2,}"
    r"|\d{1,3}(?:[ \u00a0\u202f'’]\d{3})+(?:[.,]\d+)?"
    r"|\d+(?:\.\d+)?|\.\d+)"
    r"\s*(?P<rest>[^\d]*[23²³]?)"
)
# Spelling of a unit -> its quantity, and its size in base units.
_UNITS: dict[str, tuple[str, float]] = {}
for _dimension, _base, _spellings in (
    ("length", 1e-3, "mm millimetre millimetres millimeter millimeters"),
    ("length", 1e-2, "cm centimetre centimetres centimeter centimeters"),
    ("length", 1.0, "m metre metres meter meters"),
    ("length", 1e3, "km kilometre kilometres kilometer kilometers"),
    ("length", 0.3048, "ft foot feet"),
    ("length", 1609.344, "mi mile miles"),
    ("area", 1.0, "m2 sqm squaremetre squaremetres squaremeter squaremeters"),
    ("area", 1e4, "ha hectare hectares"),
    ("area", 1e6, "km2 sqkm squarekm squarekilometre squarekilometres squarekilometer squarekilometers"),
    ("area", 2589988.110336, "mi2 sqmi squaremile squaremiles"),
    ("mass", 1e-3, "g gram grams gramme grammes"),
    ("mass", 1.0, "kg kilo kilos kilogram kilograms"),
    ("mass", 1e3, "t tonne tonnes"),
    ("mass", 0.45359237, "lb lbs pound pounds"),
    ("time", 1.0, "year years yr yrs"),
    ("share", 1.0, "% percent pct"),
    ("people", 1.0, "people inhabitants persons"),
    ("speed", 1.0, "km/h kph kmh"),
):
    _UNITS.update({spelling: (_dimension, _base) for spelling in _spellings.split()})


class _Quantity(NamedTuple):
    value: float
    unit: str


def normalise(text: str) -> str:
    """Removes case, diacritics, articles, punctuation, extra white space and thousands separators; number words become
    digits.

    >>> normalise("  The Côte d’Ivoire. ")
    'cote divoire'
    """
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold().replace("ß", "ss")
    text = re.sub(r"(?<=\d)[,\u202f\u00a0](?=\d{3}\b)", "", text)
    text = _APOSTROPHES.sub("", text)
    # Decimal points and signs have a meaning; other punctuation and symbols do not.
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text)
    text = "".join(c if c in ".%+" or c.isalnum() or c.isspace() else " " for c in text)
    bare = " ".join(_WORDS.get(word, word) for word in _ARTICLES.sub(" ", text).split())
    return bare or " ".join(text.split())


def matches(answer: str | None, answers: Iterable[str]) -> bool:
    """Whether `answer` matches any of `answers` (gold answer and aliases)."""
    if answer is None or not answer.strip():
        return False
    return any(_same(answer, gold) for gold in answers)


def _same(answer: str, gold: str) -> bool:
    if len(answer) > max(MAX_ANSWER_CHARS, 2 * len(gold)):
        return False
    left, right = _quantity(answer), _quantity(gold)
    if left is not None and right is not None:
        return _same_quantity(left, right)
    spoken, wanted = normalise(answer), normalise(gold)
    return bool(wanted) and spoken == wanted


def _quantity(text: str) -> _Quantity | None:
    """The number and unit ("" if none) that the text consists of; None for any other text."""
    text = _HEDGES.sub("", text.strip().rstrip(".").strip())
    text = " ".join(_WORDS.get(word.casefold(), word) for word in text.split())
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub(r"[ \u00a0\u202f'’,]", "", match["digits"])
    if digits.count(".") > 1:
        digits = digits.replace(".", "")
    value = float(digits) * (-1 if match["sign"] in ("-", "−", "–") else 1)
    rest = match["rest"].casefold().replace("²", "2").replace("³", "3").replace("^", "")
    rest = rest.replace("sq.", "sq").strip(" .")
    words = rest.split()
    while words and _SCALE_SPELLINGS.get(words[0], words[0]) in _SCALES:
        word = words.pop(0)
        value *= _SCALES[_SCALE_SPELLINGS.get(word, word)]
    unit = "".join(words) if "".join(words) in _UNITS else " ".join(words)
    return _Quantity(value, match["currency"] + unit)


def _same_quantity(left: _Quantity, right: _Quantity) -> bool:
    if left.unit == right.unit or not left.unit or not right.unit:
        return math.isclose(left.value, right.value, rel_tol=1e-9)
    if left.unit in _UNITS and right.unit in _UNITS:
        (left_kind, left_base), (right_kind, right_base) = _UNITS[left.unit], _UNITS[right.unit]
        # Spellings of the same unit compare exactly; converted values are usually rounded.
        tolerance = 1e-9 if left_base == right_base else 0.01
        same = math.isclose(left.value * left_base, right.value * right_base, rel_tol=tolerance)
        return left_kind == right_kind and same
    return False
