"""Dates and years with an era, in the orders in which English writes them, and with the signs 年月日 and 년월일."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMES = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9}
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_DAY = r"(?:the )?(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_ERA = r"(?: ?(?P<era>bce?|b\.c\.(?:e\.)?|ad|a\.d\.|ce|c\.e\.))"
_YEAR = rf"(?P<year>\d{{1,4}}){_ERA}?"
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"{_MONTH} {_DAY}(?:,? {_YEAR})?",
        rf"{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?",
        rf"{_MONTH},? (?P<year>\d{{3,4}}){_ERA}?",
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        rf"(?P<year>\d{{1,4}}){_ERA}",
        r"(?P<era>ad|a\.d\.) ?(?P<year>\d{1,4})",
        r"(?P<year>\d{3,4}) ?[年년](?: ?(?P<month>\d{1,2}) ?[月월](?: ?(?P<day>\d{1,2}) ?[日일])?)?",
    )
)
_TWO_NUMBERS = re.compile(r"(?P<one>\d{1,2})[/.-](?P<other>\d{1,2})[/.-](?P<year>\d{4})")


_WEEKDAY = re.compile(r"^(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\.?,? (?=\S)")


class Date(NamedTuple):
    """A year (negative before our era), a month and a day, as far as they are said."""

    year: int | None
    month: int | None
    day: int | None


def date(text: str) -> Date | None:
    """The date that the text consists of; None for other texts, and where day and month could be either way round.

    >>> date("July 4, 1776") == date("the 4th of July 1776") == date("1776-07-04"), date("44 B.C."), date("3/4/2020")
    (True, Date(year=-44, month=None, day=None), None)
    """
    text = " ".join(text.casefold().split()).rstrip(" ,;")
    # "B.C." ends in a point of its own.
    text = text.removesuffix(".") if not re.search(r"[a-z]\.[a-z]\.$", text) else text
    text = _WEEKDAY.sub("", text)
    if found := _TWO_NUMBERS.fullmatch(text):
        one, other = int(found["one"]), int(found["other"])
        month, day = (one, other) if other > 12 or one == other else (other, one)
        return _checked(int(found["year"]), month, day) if day > 12 or one == other else None
    for form in _FORMS:
        if found := form.fullmatch(text):
            parts = found.groupdict()
            year = int(parts["year"]) if parts.get("year") else None
            if year is not None and (parts.get("era") or "").startswith("b"):
                year = -year
            month = parts.get("month")
            number = _MONTHS.get(month, 0) or int(month) if month else None
            return _checked(year, number, int(parts["day"]) if parts.get("day") else None)
    return None


def _checked(year: int | None, month: int | None, day: int | None) -> Date | None:
    sound = (month is None or 1 <= month <= 12) and (day is None or 1 <= day <= 31)
    return Date(year, month, day) if sound else None
