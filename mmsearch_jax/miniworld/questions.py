"""Questions about scenes: the wording of each kind, and the gold answers.

A question is made from the picture's contents (entities, boxes) and their facts. Its kind decides which search answers
it best; its wording never names the entity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmsearch_jax.miniworld import colours, facts, scenes
from mmsearch_jax.miniworld.entities import Entity

_WHOLE = (
    "What is the {phrase} of the country with this flag?",
    "This is the flag of a country. What is the {phrase} of that country?",
    "Which {phrase} does the country with this flag have?",
)
_CROP = (
    "What is the {phrase} of the country with {expression}?",
    "Look at {expression}. What is the {phrase} of that country?",
    "Which {phrase} does the country with {expression} have?",
)
_TWO_HOP_WHOLE = (
    "What is the {phrase} of the country where this monument stands?",
    "This monument stands in a country. What is the {phrase} of that country?",
)
_TWO_HOP_CROP = (
    "What is the {phrase} of the country where {expression} stands?",
    "Look at {expression}. What is the {phrase} of the country where it stands?",
)
_COUNT = ("How many pictures are in the image?", "Count the pictures in the image.")
_COUNT_FLAGS = ("How many flags are in the image?", "Count the flags in the image.")
_WHERE = ("Where in the image is the flag?", "Where is the flag?")
_COLOUR = ("What is the main colour of {expression}?", "Which colour covers most of {expression}?")

COLOUR_SHARE = 0.5
"""The least share of a picture that a colour must cover to be asked for."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a scene. `form` is the family of its wording; `expression` is its referring expression."""

    text: str
    answers: tuple[str, ...]
    form: str
    target: int | None = None
    expression: str = ""
    attribute: str = ""


def whole_image(rng: np.random.Generator, land: Entity, keys: Sequence[str]) -> Question:
    """Asks for a fact of the land whose flag fills the image."""
    key = _pick_known(rng, land, keys)
    text = _pick(rng, _WHOLE).format(phrase=facts.ATTRIBUTES[key].phrase)
    return Question(text, answers_for(key, land.facts[key]), "land", 0, "", key)


def crop(rng: np.random.Generator, land: Entity, target: int, expression: str, keys: Sequence[str]) -> Question:
    """Asks for a fact of the land whose flag is one of several pictures; a referring expression names the picture."""
    key = _pick_known(rng, land, keys)
    text = _pick(rng, _CROP).format(phrase=facts.ATTRIBUTES[key].phrase, expression=expression)
    return Question(text, answers_for(key, land.facts[key]), "land", target, expression, key)


def two_hop(rng: np.random.Generator, land: Entity, target: int, expression: str, keys: Sequence[str]) -> Question:
    """Asks for a fact of the pictured monument's land; `expression` is empty if the monument is the only picture."""
    key = _pick_known(rng, land, keys)
    forms = _TWO_HOP_CROP if expression else _TWO_HOP_WHOLE
    text = _pick(rng, forms).format(phrase=facts.ATTRIBUTES[key].phrase, expression=expression)
    return Question(text, answers_for(key, land.facts[key]), "monument", target, expression, key)


def visual(
    rng: np.random.Generator, image: Image.Image, kinds: Sequence[str], boxes: Sequence[scenes.Box]
) -> list[Question]:
    """All questions about the scene that need no search; the caller picks one. Never empty."""
    questions = [Question(count_question(rng), (str(len(kinds)), _NUMERALS[len(kinds)]), "count")]
    flags = [i for i, kind in enumerate(kinds) if kind == "flag"]
    if flags and len(flags) < len(kinds):
        questions.append(Question(count_flags_question(rng), (str(len(flags)), _NUMERALS[len(flags)]), "count_flags"))
    for i in flags:
        phrase = scenes.spatial_phrase(boxes, i)
        if len(flags) == 1 and len(kinds) > 1 and phrase:
            questions.append(Question(where_question(rng), (phrase, phrase.removeprefix("on the ")), "where", i))
        name, share = colours.dominant_colour(image, boxes[i])
        if share < COLOUR_SHARE:
            continue
        if len(kinds) == 1:
            questions.append(Question(colour_question(rng, "this flag"), (name,), "colour", i))
        elif phrase:
            expression = f"the flag {phrase}"
            questions.append(Question(colour_question(rng, expression), (name,), "colour", i, expression))
    return questions


def count_question(rng: np.random.Generator) -> str:
    """Asks for the number of pictures."""
    return _pick(rng, _COUNT)


def count_flags_question(rng: np.random.Generator) -> str:
    """Asks for the number of flags."""
    return _pick(rng, _COUNT_FLAGS)


def where_question(rng: np.random.Generator) -> str:
    """Asks for the place of the only flag."""
    return _pick(rng, _WHERE)


def colour_question(rng: np.random.Generator, expression: str) -> str:
    """Asks for the main colour of the picture that a referring expression names."""
    return _pick(rng, _COLOUR).format(expression=expression)


def answers_for(key: str, value: str) -> tuple[str, ...]:
    """The gold answer in the page's spelling, and the other spellings that count as right."""
    answers = [value]
    head, bracket, tail = value.partition(" (")
    if bracket and key in ("currency", "anthem"):
        answers += [head, tail.rstrip(")")]
    return tuple(answers)


_NUMERALS = ("zero", "one", "two", "three", "four")


def _pick_known(rng: np.random.Generator, land: Entity, keys: Sequence[str]) -> str:
    return _pick(rng, [key for key in keys if key in land.facts])


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
