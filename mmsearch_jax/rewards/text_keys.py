"""What two spellings of one name have in common: a key that is equal for both.

Characters are treated by their kind. Marks go only where they are accents (Latin and Greek letters, the dots of ё) or optional
points (Hebrew, Arabic); in other scripts they are vowels and letters. Punctuation goes, except where it makes another name:
C#, C++, Disney+, A*, A-, .NET, 5-10, ≥ 5.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from mmsearch_jax.rewards import number_words

# Letters that no decomposition leads back to a plain one.
_PLAIN = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th", "ё": "е"}
)
_SUPERSCRIPT = re.compile(r"(?<=\d)[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3}|`+)(?=\S)(.+?)(?<=\S)\1")
_OPTIONAL_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]")
_APOSTROPHES = re.compile(r"['’‘`´ʼʻ]")
_ABBREVIATION = re.compile(r"(?<!\w)(?:[^\W\d_]\.\s?)+[^\W\d_](?:\.|(?!\w))")
_LEADING_ARTICLE = re.compile(
    r"^(?:the|an|a(?!\s+(?:major|minor|sharp|flat|positive|negative|plus|minus|team)\b))\s+(?=\S)"
)
_OTHER_ARTICLE = re.compile(r"(?<!\S)the\s+(?=\S)")
_KEPT_AFTER_A_LETTER = "#*♯♭"
_KEPT = "%°@^$€£¥"
# A bare dash behind a letter or two is a grade, a blood group or an ion ("A-", "AB-", "Cl-"), behind a year an open range.
_TRAILING_SIGN = re.compile(r"(?<!\w)(?:[^\W\d_]{1,2}|\d+)$")
_RANGE = re.compile(r"(?<=\d)\s+(?:to|[-–—])\s+(?=\d)")
_ROMAN = re.compile(r"(?:x{0,3})(?:ix|iv|v?i{0,3})")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10}


def normalise(text: str) -> str:
    """The key of a name or a phrase: without case, accents, articles, punctuation and extra white space; number words become
    digits.

    >>> normalise("  The Côte d’Ivoire. ")
    'cote divoire'
    >>> normalise("Washington, D.C.") == normalise("washington DC"), normalise("C#"), normalise("Vitamin A")
    (True, 'c#', 'vitamin a')
    """
    text = folded(text)
    text = _ABBREVIATION.sub(lambda found: re.sub(r"[.\s]", "", found[0]) + " ", text)
    text = re.sub(r"(?<=\d)[,\u202f\u00a0](?=\d{3}\b)", "", text)
    text = _APOSTROPHES.sub("", text).replace("&", " and ")
    bare = _OTHER_ARTICLE.sub("", _LEADING_ARTICLE.sub("", " ".join(text.split())))
    bare = _RANGE.sub("-", bare)
    kept = "".join(_kept(bare, i) for i in range(len(bare))).split()
    return " ".join(number_words.to_digits([*kept[:1], *map(_from_roman, kept[1:])]))


def _from_roman(word: str) -> str:
    """The digits of a Roman numeral from 2 to 39 of two letters or more, as they stand behind names: "World War II"."""
    if len(word) < 2 or not _ROMAN.fullmatch(word):
        return word
    values = [_ROMAN_VALUES[letter] for letter in word]
    return str(sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True)))


def folded(text: str) -> str:
    """The text without case, accents and emphasis, in compatible characters (full-width forms, ligatures, any digits).

    >>> folded("**Łódź** １０²")
    'lodz 10^2'
    """
    text = _EMPHASIS.sub(r"\2", text)
    text = _SUPERSCRIPT.sub(lambda found: "^" + unicodedata.normalize("NFKC", found[0]), text)
    text = unicodedata.normalize("NFKC", _FRACTION.sub(" ", text)).casefold()
    text = _OPTIONAL_POINTS.sub("", text)
    folded = "".join(_without_accent(character) for character in unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", folded.translate(_PLAIN))


@functools.lru_cache(maxsize=4096)
def _without_accent(character: str) -> str:
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.digit(character))
    if "\u0300" <= character <= "\u036f":
        return ""  # an accent for which no composed letter exists
    base = unicodedata.normalize("NFD", character)[0]
    return base if unicodedata.name(base, "").startswith(("LATIN", "GREEK")) else character


def _kept(text: str, place: int) -> str:
    character = text[place]
    kind = unicodedata.category(character)
    before, after = text[place - 1 : place] or " ", text[place + 1 : place + 2] or " "
    if character == "×":
        return "x"
    if kind[0] in "LMN" or character in _KEPT or (kind == "Sm" and character not in "~⁄−|♯"):
        return character
    if kind == "Cf":
        return ""
    if character in _KEPT_AFTER_A_LETTER and (before.isalnum() or before in _KEPT_AFTER_A_LETTER):
        return character
    if character == "." and ((after.isdigit() and before.isdigit()) or (after.isalnum() and before.isspace())):
        return character
    if character in "/⁄:" and before.isdigit() and after.isdigit():
        return "/" if character == "⁄" else character
    if kind == "Pd" and (before.isdigit() or before.isspace()) and after.isdigit():
        return "-"
    if kind == "Pd" and after.isspace() and _TRAILING_SIGN.search(text[max(0, place - 20) : place]):
        return "-"
    return "-" if character == "−" else " "
