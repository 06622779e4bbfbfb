"""Numbers with units: what counts as a number, a closed list of units, and when two quantities are the same.

Words behind a number are its unit only if they are in the list; "50 Cent" and "1889 is wrong" are no quantities.
"""

from __future__ import annotations

import itertools
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
    r"(?:[eE](?P<e>[-+−]?\d{1,2})|\s*[×x*·]\s*10\s*\^\s*(?P<ten>[-+−]?\d{1,2}))?"
    r"\s*(?P<rest>[^\d]*[23²³]?)"
)
_MINUS = re.compile(r"^(?:minus|negative)\s+(?=\d)", re.IGNORECASE)
_CURRENCY_FIRST = re.compile(r"^(USD|US\$|EUR|GBP|JPY)\s*(?=\d)(.*)$", re.DOTALL)
_PART = re.compile(r"(?P<part>\d+(?:\.\d+)?\s*(?P<unit>[^\W\d_]+))(?:,?\s+and\s+|,?\s*)")
_SCALE_SPELLINGS = {"k": "thousand", "mn": "million", "mio": "million", "bn": "billion", "tn": "trillion"}
_CJK_SCALES = {"万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8, "억": 10**8}
# Dimension, size in base units, spellings. A spelling counts in any case unless two differ in case only (mW, MW) or it is one
# letter ("3 m", not "3M"). There is no "s", because "1990s" is a decade.
_LIST: tuple[tuple[str, str, str], ...] = (
    ("length", "0.000000001", "nm nanometre nanometres nanometer nanometers"),
    ("length", "0.000001", "µm μm um micrometre micrometres micrometer micrometers micron microns"),
    ("length", "0.001", "mm millimetre millimetres millimeter millimeters ミリメートル 毫米"),
    ("length", "0.01", "cm centimetre centimetres centimeter centimeters センチメートル 厘米 公分 센티미터"),
    ("length", "1", "m metre metres meter meters メートル 米 公尺 미터"),
    ("length", "1000", "km kms kilometre kilometres kilometer kilometers キロメートル 公里 千米 킬로미터"),
    ("length", "0.0254", "inch inches"),
    ("length", "0.3048", "ft foot feet"),
    ("length", "0.9144", "yd yard yards"),
    ("length", "1609.344", "mi mile miles"),
    ("length", "1852", "nmi nauticalmile nauticalmiles"),
    ("length", "149597870700", "au astronomicalunit astronomicalunits"),
    ("length", "9460730472580800", "ly lightyear lightyears"),
    ("area", "1", "m2 sqm squaremetre squaremetres squaremeter squaremeters 平方米 平方メートル 제곱미터"),
    ("area", "10000", "ha hectare hectares"),
    (
        "area",
        "1000000",
        "km2 sqkm squarekm squarekilometre squarekilometres squarekilometer squarekilometers 平方公里 平方千米 "
        "平方キロメートル 제곱킬로미터",
    ),
    ("area", "4046.8564224", "acre acres"),
    ("area", "2589988.110336", "mi2 sqmi squaremile squaremiles"),
    ("area", "0.09290304", "ft2 sqft squarefoot squarefeet"),
    ("volume", "0.001", "ml millilitre millilitres milliliter milliliters"),
    ("volume", "0.01", "cl centilitre centilitres centiliter centiliters"),
    ("volume", "1", "l litre litres liter liters"),
    ("volume", "3.785411784", "gal gallon gallons"),
    ("volume", "1000", "m3 cubicmetre cubicmetres cubicmeter cubicmeters"),
    ("mass", "0.000001", "mg milligram milligrams milligramme milligrammes"),
    ("mass", "0.001", "g gram grams gramme grammes"),
    ("mass", "1", "kg kgs kilo kilos kilogram kilograms kilogramme kilogrammes キログラム 公斤 千克 킬로그램"),
    ("mass", "1000", "t tonne tonnes metricton metrictons"),
    ("mass", "0.45359237", "lb lbs pound pounds"),
    ("mass", "0.028349523125", "oz ounce ounces"),
    ("time", "0.001", "ms millisecond milliseconds"),
    ("time", "1", "sec secs second seconds 秒"),
    ("time", "60", "min mins minute minutes 分钟 分鐘 分間"),
    ("time", "3600", "h hr hrs hour hours 小时 小時 時間 시간"),
    ("time", "86400", "day days"),
    ("time", "604800", "week weeks"),
    ("months", "1", "month months"),
    ("months", "12", "year years yr yrs yearsold yearsofage 岁 歲 歳"),
    ("share", "1", "% percent pct percentage percentagepoints"),
    ("people", "1", "people inhabitants persons person residents 人 명"),
    ("data", "1", "byte bytes"),
    ("data", "1000", "kB kilobyte kilobytes"),
    ("data", "1000000", "MB megabyte megabytes"),
    ("data", "1000000000", "GB gigabyte gigabytes"),
    ("data", "1000000000000", "TB terabyte terabytes"),
    ("speed", "1", "km/h kph kmh kmperhour kilometresperhour kilometersperhour"),
    ("speed", "1.609344", "mph mi/h milesperhour"),
    ("speed", "3.6", "m/s metrespersecond meterspersecond"),
    ("frequency", "1", "Hz hertz"),
    ("frequency", "1000", "kHz kilohertz"),
    ("frequency", "1000000", "MHz megahertz"),
    ("frequency", "1000000000", "GHz gigahertz"),
    ("power", "0.001", "mW milliwatt milliwatts"),
    ("power", "1", "w W watt watts"),
    ("power", "1000", "kW kilowatt kilowatts"),
    ("power", "1000000", "MW megawatt megawatts"),
    ("power", "1000000000", "GW gigawatt gigawatts"),
    ("power", "745.69987158227", "hp horsepower"),
    ("energy", "1", "joule joules"),
    ("energy", "1000", "kJ kilojoule kilojoules"),
    ("energy", "4184", "kcal kilocalorie kilocalories"),
    ("energy", "3600000", "kWh kilowatthour kilowatthours"),
    ("voltage", "1", "V volt volts"),
    ("voltage", "1000", "kV kilovolt kilovolts"),
    ("pressure", "1", "Pa pascal pascals"),
    ("pressure", "100", "hPa hectopascal hectopascals"),
    ("pressure", "1000", "kPa kilopascal kilopascals"),
    ("angle", "1", "° degree degrees"),
    ("celsius", "1", "°c degreescelsius degreecelsius celsius"),
    ("fahrenheit", "1", "°f degreesfahrenheit degreefahrenheit fahrenheit"),
    ("kelvin", "1", "kelvin kelvins"),
    ("dollar", "1", "$ dollar dollars usd us$ usdollars usdollar"),
    ("euro", "1", "€ euro euros eur"),
    ("pound sterling", "1", "£ gbp poundssterling poundsterling"),
    ("yen", "1", "¥ yen jpy"),
)
_SPELLINGS = [(spelling, (kind, Decimal(size))) for kind, size, all_of in _LIST for spelling in all_of.split()]
_AS_WRITTEN = dict(_SPELLINGS)
_CURRENCY_KINDS = frozenset(_CURRENCIES.values())


def _in_any_case() -> dict[str, tuple[str, Decimal]]:
    meant: dict[str, set[tuple[str, Decimal]]] = {}
    for spelling, unit in _SPELLINGS:
        meant.setdefault(spelling.casefold(), set()).add(unit)
    return {
        spelling: next(iter(units))
        for spelling, units in meant.items()
        if len(units) == 1 and (len(spelling) > 1 or not spelling.isascii() or not spelling.isalpha())
    } | {"L": _AS_WRITTEN["l"]}


_IN_ANY_CASE = _in_any_case()


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
    text = _MINUS.sub("-", _CURRENCY_FIRST.sub(r"\2 \1", text))
    text = _with_decimals(re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text, flags=re.IGNORECASE))
    words = number_words.to_digits([word.casefold() if word.isalpha() else word for word in text.split()])
    # Words keep their case where they are no numbers: units are told apart by it.
    text = " ".join(words) if _has_digits(words) and not _has_digits(text.split()) else text
    return _one(text) or _sum_of_parts(text)


def _one(text: str) -> Quantity | None:
    match = _NUMBER.fullmatch(text)
    if match is None or (match["currency"] and match["currency_inside"]):
        return None
    digits = re.sub(r"[ \u00a0\u202f'’,]", "", match["digits"])
    value = Decimal(digits.replace(".", "") if digits.count(".") > 1 else digits)
    value = -value if match["sign"] in ("-", "−", "–") else value
    if power := match["e"] or match["ten"]:
        value = value.scaleb(int(power.replace("−", "-")))
    currency = _CURRENCIES.get(match["currency"] or match["currency_inside"], "")
    rest = match["rest"].replace("²", "2").replace("³", "3").replace("^", "").strip(" .")
    parts = _split_scale(rest)
    named = _unit(parts[1:]) if len(parts) > 1 else None
    in_money = bool(currency) or (named is not None and named[0] in _CURRENCY_KINDS)
    while parts and (scale := _scale(parts[0], in_money)):
        value *= scale
        parts.pop(0)
    unit = _unit(parts)
    if unit is None or (currency and unit[0] not in ("", currency)):
        return None
    return Quantity(value, currency or unit[0], unit[1])


def _sum_of_parts(text: str) -> Quantity | None:
    """ "5 ft 11 in" and "1 hour and 30 minutes": parts of one dimension, each smaller than the one before."""
    found = list(_PART.finditer(text))
    if len(found) < 2 or _PART.sub("", text).strip():
        return None
    parts = [_one(part["part"].replace("in", "inch") if part["unit"] == "in" else part["part"]) for part in found]
    known = [part for part in parts if part is not None and part.kind and part.value >= 0]
    smaller = all(one.size > other.size and one.kind == other.kind for one, other in itertools.pairwise(known))
    if len(known) < len(parts) or not smaller:
        return None
    least = known[-1].size
    return Quantity(sum((part.value * part.size for part in known), Decimal()) / least, known[0].kind, least)


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


def _split_scale(rest: str) -> list[str]:
    """The words behind a number; a scale of Chinese, Japanese or Korean stands without a blank."""
    for scale in _CJK_SCALES:
        if rest.startswith(scale):
            return [scale, *rest[len(scale) :].split()]
    return rest.split()


def _scale(word: str, in_money: bool) -> int:
    # "$3M" and "3M dollars" are millions; "3M" alone is a company, "4K" a resolution.
    if word in ("M", "m") and in_money:
        return 10**6
    if word == "K" and not in_money:
        return 0
    word = word.casefold()
    return (
        100
        if word == "hundred"
        else _CJK_SCALES.get(word) or number_words.SCALES.get(_SCALE_SPELLINGS.get(word, word), 0)
    )


def _unit(words: list[str]) -> tuple[str, Decimal] | None:
    """Dimension and size of the unit that the words spell; None if they spell none in the list."""
    if not words:
        return "", Decimal(1)
    spelling = "".join(words).replace("sq.", "sq")
    return _AS_WRITTEN.get(spelling) or _IN_ANY_CASE.get(spelling) or _IN_ANY_CASE.get(spelling.casefold())
