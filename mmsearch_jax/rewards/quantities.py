"""Numbers with units: what counts as a number, a closed list of units, and when two quantities are the same.

Words behind a number are its unit only if they are in the list; "50 Cent" and "1889 is wrong" are no quantities.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import NamedTuple

from mmsearch_jax.rewards import number_words

_HEDGES = re.compile(r"^(?:about|approximately|approx|around|roughly|nearly|circa|ca|c\.|~|≈)[\s.]*", re.IGNORECASE)
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound sterling", "¥": "yen"}
_NUMBER = re.compile(
    r"(?P<currency>[$€£¥]?)\s*(?P<sign>[-+−–]?)\s*(?P<currency_inside>[$€£¥]?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3}){2,}"
    r"|\d{1,3}(?:[ \u00a0\u202f'’]\d{3})+(?:[.,]\d+)?"
    r"|\d+(?:\.\d+)?|\.\d+)"
    r"\s*(?P<rest>[^\d]*[23²³]?)"
)
_SCALE_SPELLINGS = {"k": "thousand", "mn": "million", "mio": "million", "bn": "billion", "tn": "trillion"}
# Dimension, size in base units, spellings. Symbols of one letter count only as they stand here ("3 m", not "3M"); there is
# no "s", because "1990s" is a decade.
_LIST: tuple[tuple[str, str, str], ...] = (
    ("length", "0.001", "mm millimetre millimetres millimeter millimeters"),
    ("length", "0.01", "cm centimetre centimetres centimeter centimeters"),
    ("length", "1", "m metre metres meter meters"),
    ("length", "1000", "km kms kilometre kilometres kilometer kilometers"),
    ("length", "0.0254", "inch inches"),
    ("length", "0.3048", "ft foot feet"),
    ("length", "0.9144", "yd yard yards"),
    ("length", "1609.344", "mi mile miles"),
    ("area", "1", "m2 sqm squaremetre squaremetres squaremeter squaremeters"),
    ("area", "10000", "ha hectare hectares"),
    ("area", "1000000", "km2 sqkm squarekm squarekilometre squarekilometres squarekilometer squarekilometers"),
    ("area", "4046.8564224", "acre acres"),
    ("area", "2589988.110336", "mi2 sqmi squaremile squaremiles"),
    ("area", "0.09290304", "ft2 sqft squarefoot squarefeet"),
    ("volume", "0.001", "ml millilitre millilitres milliliter milliliters"),
    ("volume", "1", "l litre litres liter liters"),
    ("volume", "1000", "m3 cubicmetre cubicmetres cubicmeter cubicmeters"),
    ("mass", "0.001", "g gram grams gramme grammes"),
    ("mass", "1", "kg kilo kilos kilogram kilograms"),
    ("mass", "1000", "t tonne tonnes"),
    ("mass", "0.45359237", "lb lbs pound pounds"),
    ("time", "1", "sec secs second seconds"),
    ("time", "60", "min mins minute minutes"),
    ("time", "3600", "h hr hrs hour hours"),
    ("time", "86400", "day days"),
    ("time", "604800", "week weeks"),
    ("months", "1", "month months"),
    ("months", "12", "year years yr yrs"),
    ("share", "1", "% percent pct percentage percentagepoints"),
    ("people", "1", "people inhabitants persons person residents"),
    ("speed", "1", "km/h kph kmh"),
    ("speed", "1.609344", "mph"),
    ("power", "1", "w watt watts"),
    ("power", "1000", "kw kilowatt kilowatts"),
    ("power", "1000000", "mw megawatt megawatts"),
    ("angle", "1", "° degree degrees"),
    ("celsius", "1", "°c degreescelsius degreecelsius celsius"),
    ("fahrenheit", "1", "°f degreesfahrenheit degreefahrenheit fahrenheit"),
    ("dollar", "1", "$ dollar dollars usd us$ usdollars usdollar"),
    ("euro", "1", "€ euro euros eur"),
    ("pound sterling", "1", "£ gbp poundssterling poundsterling"),
    ("yen", "1", "¥ yen jpy"),
)
_UNITS = {spelling: (kind, Decimal(size)) for kind, size, all_of in _LIST for spelling in all_of.split()}
_ONLY_AS_WRITTEN = ("m", "g", "t", "l", "h", "w")


class Quantity(NamedTuple):
    """A value, its unit's dimension and the unit's size in base units; "" and 1 without a unit."""

    value: Decimal
    kind: str
    size: Decimal


def quantity(text: str) -> Quantity | None:
    """The number and unit that the text consists of; None for any other text.

    >>> quantity("about 1.5 thousand km").value, quantity("1889 is wrong"), quantity("3M")
    (Decimal('1500.0'), None, None)
    """
    text = _HEDGES.sub("", text.strip().rstrip(".").strip())
    text = _with_decimals(re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text, flags=re.IGNORECASE))
    words = number_words.to_digits([word.casefold() if word.isalpha() else word for word in text.split()])
    # Words keep their case where they are no numbers: units are told apart by it.
    text = " ".join(words) if _has_digits(words) and not _has_digits(text.split()) else text
    match = _NUMBER.fullmatch(text)
    if match is None or (match["currency"] and match["currency_inside"]):
        return None
    digits = re.sub(r"[ \u00a0\u202f'’,]", "", match["digits"])
    value = Decimal(digits.replace(".", "") if digits.count(".") > 1 else digits)
    value = -value if match["sign"] in ("-", "−", "–") else value
    currency = _CURRENCIES.get(match["currency"] or match["currency_inside"], "")
    rest = match["rest"].replace("²", "2").replace("³", "3").replace("^", "").strip(" .")
    parts = rest.split()
    while parts and (scale := _scale(parts[0], currency)):
        value *= scale
        parts.pop(0)
    unit = _unit(parts)
    if unit is None or (currency and unit[0] not in ("", currency)):
        return None
    return Quantity(value, currency or unit[0], unit[1])


def same_quantity(left: Quantity, right: Quantity) -> bool:
    """Whether two quantities are equal. A missing unit fits any; values in other units may be rounded to a hundredth."""
    if left.kind and right.kind and left.kind != right.kind:
        return False
    if not left.kind or not right.kind or left.size == right.size:
        return left.value == right.value
    one, other = left.value * left.size, right.value * right.size
    return abs(one - other) <= max(abs(one), abs(other)) / 100


def _has_digits(words: list[str]) -> bool:
    return any(character.isdigit() for word in words for character in word)


def _with_decimals(text: str) -> str:
    """ "1½" and "1 ½" as 1.5, where the fraction has a finite decimal of at most three places."""

    def decimal(match: re.Match[str]) -> str:
        value = unicodedata.numeric(match[2])
        whole = int(match[1] or 0)
        return str(whole + value) if round(value, 3) == value else match[0]

    return re.sub(r"(\d+)?\s*([¼-¾⅛-⅞])", decimal, text)


def _scale(word: str, currency: str) -> int:
    if currency and word == "M":
        return 10**6
    word = word.casefold()
    return 100 if word == "hundred" else number_words.SCALES.get(_SCALE_SPELLINGS.get(word, word), 0)


def _unit(words: list[str]) -> tuple[str, Decimal] | None:
    """Dimension and size of the unit that the words spell; None if they spell none in the list."""
    if not words:
        return "", Decimal(1)
    spelling = "".join(words).replace("sq.", "sq")
    if spelling.casefold() in _ONLY_AS_WRITTEN and spelling not in _ONLY_AS_WRITTEN and spelling != "L":
        return None
    return _UNITS.get(spelling.casefold())
