"""English numbers written as words: cardinals and ordinals, up to trillions."""

from __future__ import annotations

from collections.abc import Sequence

_ONES = [
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
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: number for number, word in enumerate(_ONES)}
_SMALL |= {word: 10 * number for number, word in enumerate(_TENS, 2)}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_IRREGULAR = {"first": "one", "second": "two", "third": "three", "fifth": "five", "eighth": "eight", "ninth": "nine"}
_ORDINALS = {word.removesuffix("y") + ("ieth" if word.endswith("y") else "th"): word for word in (*_ONES, *_TENS)}
_ORDINALS |= {f"{word}th": word for word in ("hundred", *SCALES)} | _IRREGULAR | {"twelfth": "twelve"}
_WORDS = {*_SMALL, "hundred", *SCALES}


def to_digits(words: Sequence[str]) -> list[str]:
    """The words with every run of number words replaced by its digits; a run that is no number stays as it is.

    >>> to_digits("the twenty first of twenty one".split())
    ['the', '21st', 'of', '21']
    """
    out: list[str] = []
    start = 0
    while start < len(words):
        end = _end_of_run(words, start)
        run = list(words[start:end])
        ordinal = bool(run) and run[-1] in _ORDINALS
        if ordinal:
            run[-1] = _ORDINALS[run[-1]]
        number = _value([word for word in run if word != "and"]) if run else None
        if number is None:
            out += words[start : max(end, start + 1)]
        else:
            out.append(f"{number}{_suffix(number)}" if ordinal else str(number))
        start = max(end, start + 1)
    return out


def _end_of_run(words: Sequence[str], start: int) -> int:
    end = start
    while end < len(words):
        word = words[end]
        if word in _ORDINALS:
            return end + 1
        joins = word == "and" and end > start and words[end - 1] in ("hundred", *SCALES)
        if word not in _WORDS and not (joins and end + 1 < len(words) and words[end + 1] in (*_SMALL, *_ORDINALS)):
            break
        end += 1
    return end


def _value(words: Sequence[str]) -> int | None:
    """The number that the words say; None if they say none, or several ("forty fifty")."""
    total, group, last = 0, None, None
    top = None
    for word in words:
        if word in SCALES:
            if group is None or (top is not None and SCALES[word] >= top):
                return None
            total, group, last, top = total + group * SCALES[word], None, None, SCALES[word]
        elif word == "hundred":
            if group is None or not 0 < group < 100 or last == 100:
                return None
            group, last = group * 100, 100
        else:
            number = _SMALL[word]
            fits = group is None or last == 100 or (last is not None and 20 <= last < 100 and 0 < number < 10)
            if not fits or (group is not None and number == 0):
                return None
            group, last = (group or 0) + number, number
    return total + (group or 0) if words else None


def _suffix(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
