"""Invented words: names, titles and numbers for the generated training world.

The output only has to *look* like the real world's text (diacritics, hyphens, several words, long numbers), so that a
policy that has never seen a real name can copy one. This module knows nothing of entities or questions.
"""

from __future__ import annotations

import numpy as np

_ONSETS = [
    "b",
    "b",
    "br",
    "c",
    "ch",
    "d",
    "d",
    "dr",
    "f",
    "g",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "k",
    "kh",
    "kr",
    "l",
    "l",
    "l",
    "m",
    "m",
    "m",
    "mb",
    "n",
    "n",
    "n",
    "nd",
    "ng",
    "ny",
    "p",
    "p",
    "pr",
    "qu",
    "r",
    "r",
    "r",
    "s",
    "s",
    "s",
    "sh",
    "st",
    "t",
    "t",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "y",
    "z",
]
_NUCLEI = [
    "a",
    "a",
    "a",
    "a",
    "a",
    "e",
    "e",
    "e",
    "e",
    "i",
    "i",
    "i",
    "i",
    "o",
    "o",
    "o",
    "u",
    "u",
    "ai",
    "au",
    "ei",
    "ia",
    "ie",
    "io",
    "oa",
    "ou",
    "ua",
]
_ACCENTED = ["á", "é", "í", "ó", "ú", "à", "è", "ê", "ã", "ç", "ö", "ü", "ä", "ø", "å", "ñ", "ë", "ô"]
_CODAS = ["n", "n", "n", "r", "r", "l", "s", "s", "m", "t", "k", "nd", "st", "ng", "x", "th", "sh", "z"]
_SMALL_WORDS = ["of", "the", "and", "de", "la", "do", "da", "di", "al", "el", "du", "les", "san", "von"]
_ENGLISH = [
    "river",
    "mountain",
    "lion",
    "eagle",
    "star",
    "sun",
    "moon",
    "golden",
    "white",
    "black",
    "red",
    "green",
    "blue",
    "rose",
    "oak",
    "pine",
    "crown",
    "sword",
    "shield",
    "bear",
    "wolf",
    "falcon",
    "dove",
    "bull",
    "horse",
    "elephant",
    "fish",
    "whale",
    "dolphin",
    "lotus",
    "lily",
    "cedar",
    "palm",
    "maple",
    "wheat",
    "flower",
    "bird",
    "land",
    "free",
    "brave",
    "glorious",
    "eternal",
    "united",
    "noble",
    "ancient",
    "north",
    "south",
    "east",
    "west",
    "upper",
    "lower",
    "great",
    "little",
    "new",
    "old",
    "saint",
    "king",
    "queen",
    "people",
    "nation",
    "fatherland",
    "homeland",
    "motherland",
    "song",
    "hymn",
    "march",
    "anthem",
    "forward",
    "arise",
    "unity",
    "peace",
    "liberty",
    "justice",
    "honor",
    "glory",
    "hope",
    "dawn",
    "morning",
    "light",
    "valley",
    "hills",
    "sea",
    "ocean",
    "island",
    "islands",
    "coast",
    "desert",
    "forest",
    "lake",
    "springs",
    "rock",
    "bridge",
    "tower",
    "temple",
    "palace",
    "castle",
    "cathedral",
    "church",
    "gate",
    "wall",
    "garden",
    "fort",
    "bay",
    "port",
    "house",
    "cross",
    "crescent",
    "ring",
    "arrow",
    "spear",
    "drum",
    "harp",
    "bell",
    "ship",
    "anchor",
    "compass",
    "lamp",
    "torch",
    "plough",
    "key",
    "double",
    "headed",
    "winged",
]


def word(rng: np.random.Generator, min_syllables: int = 1, max_syllables: int = 4) -> str:
    """One invented lower-case word; the bounds on its syllables are inclusive."""
    syllables = rng.integers(min_syllables, max_syllables + 1)
    text = "".join(_syllable(rng) for _ in range(syllables))
    return text[1:] if rng.random() < 0.15 and len(text) > 4 else text


def proper_name(rng: np.random.Generator) -> str:
    """A name like that of a country, town or mountain: one to four words, sometimes with hyphens or apostrophes."""
    kind = rng.random()
    if kind < 0.62:
        return _capital(word(rng, 2, 4))
    if kind < 0.74:
        return f"{_capital(word(rng, 1, 3))} {_capital(word(rng, 1, 3))}"
    if kind < 0.82:
        return f"{_capital(word(rng, 1, 3))}-{_capital(word(rng, 1, 2))}"
    if kind < 0.90:
        return f"{_capital(_pick(rng, _ENGLISH))} {_capital(word(rng, 2, 3))}"
    if kind < 0.95:
        return f"{_capital(word(rng, 1, 2))} {_pick(rng, _SMALL_WORDS)} {_capital(word(rng, 1, 3))}"
    return f"{_capital(word(rng, 1, 1))}'{_capital(word(rng, 1, 3))}"


def title(rng: np.random.Generator) -> str:
    """A title like that of an anthem or a book: one to five words, invented or English, capitalised."""
    words = [_pick(rng, _ENGLISH) if rng.random() < 0.5 else word(rng, 1, 3) for _ in range(rng.integers(1, 5))]
    joined = " ".join(_capital(w) if i == 0 or rng.random() < 0.75 else w for i, w in enumerate(words))
    if rng.random() < 0.25:
        joined = joined.replace(" ", f" {_pick(rng, _SMALL_WORDS)} ", 1)
    return joined


def phrase(rng: np.random.Generator) -> str:
    """A lower-case noun phrase of English words, sometimes with an invented one ("golden lion", "winged kodra")."""
    words = [_pick(rng, _ENGLISH) if rng.random() < 0.8 else word(rng, 1, 3) for _ in range(rng.integers(1, 4))]
    return " ".join(words)


def number(rng: np.random.Generator, low_digits: int = 3, high_digits: int = 9) -> str:
    """A whole number with thousands separators; its number of digits is uniform between the bounds."""
    digits = int(rng.integers(low_digits, high_digits + 1))
    return f"{int(rng.integers(10 ** (digits - 1), 10**digits)):,}"


def code(rng: np.random.Generator, length: int) -> str:
    """A code of capital letters, like that of a currency."""
    return "".join(chr(ord("A") + int(i)) for i in rng.integers(0, 26, length))


def date(rng: np.random.Generator) -> str:
    """A date written as "12 March 1847"."""
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    return f"{rng.integers(1, 32)} {_pick(rng, months)} {rng.integers(1100, 2024)}"


def _syllable(rng: np.random.Generator) -> str:
    nucleus = _pick(rng, _ACCENTED) if rng.random() < 0.04 else _pick(rng, _NUCLEI)
    return _pick(rng, _ONSETS) + nucleus + (_pick(rng, _CODAS) if rng.random() < 0.35 else "")


def _pick(rng: np.random.Generator, options) -> str:
    return options[int(rng.integers(len(options)))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
