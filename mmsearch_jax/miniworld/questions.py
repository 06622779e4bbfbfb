"""Questions about scenes: how each kind is worded, and what its gold answer is.

A question is made from what stands in the picture (entities, boxes) and what is known of it (facts). It is worded so that
its kind decides the best way to the answer, but nothing in it names the entity.
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
"""A colour is asked for only where it covers at least this share of the picture."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a scene. `form` is its wording's family, `expression` the referring expression it uses."""

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
    """Asks for a fact of the land whose flag is one picture among several, named by a referring expression."""
    key = _pick_known(rng, land, keys)
    text = _pick(rng, _CROP).format(phrase=facts.ATTRIBUTES[key].phrase, expression=expression)
    return Question(text, answers_for(key, land.facts[key]), "land", target, expression, key)


def two_hop(rng: np.random.Generator, land: Entity, target: int, expression: str, keys: Sequence[str]) -> Question:
    """Asks for a fact of the land in which the pictured monument stands; `expression` is empty when it stands alone."""
    key = _pick_known(rng, land, keys)
    forms = _TWO_HOP_CROP if expression else _TWO_HOP_WHOLE
    text = _pick(rng, forms).format(phrase=facts.ATTRIBUTES[key].phrase, expression=expression)
    return Question(text, answers_for(key, land.facts[key]), "monument", target, expression, key)


def visual(
    rng: np.random.Generator, image: Image.Image, kinds: Sequence[str], boxes: Sequence[scenes.Box]
) -> list[Question]:
    """Every question about the scene that looking alone answers; the caller picks. Never empty."""
    questions = [Question(_pick(rng, _COUNT), (str(len(kinds)), _NUMERALS[len(kinds)]), "count")]
    flags = [i for i, kind in enumerate(kinds) if kind == "flag"]
    if flags and len(flags) < len(kinds):
        questions.append(Question(_pick(rng, _COUNT_FLAGS), (str(len(flags)), _NUMERALS[len(flags)]), "count_flags"))
    for i in flags:
        phrase = scenes.spatial_phrase(boxes, i)
        if len(flags) == 1 and len(kinds) > 1 and phrase:
            questions.append(Question(_pick(rng, _WHERE), (phrase, phrase.removeprefix("on the ")), "where", i))
        name, share = colours.dominant_colour(image, boxes[i])
        if share < COLOUR_SHARE:
            continue
        if len(kinds) == 1:
            questions.append(Question(_pick(rng, _COLOUR).format(expression="this flag"), (name,), "colour", i))
        elif phrase:
            expression = f"the flag {phrase}"
            questions.append(
                Question(_pick(rng, _COLOUR).format(expression=expression), (name,), "colour", i, expression)
            )
    return questions


def answers_for(key: str, value: str) -> tuple[str, ...]:
    """The gold answer as the page spells it, and the other spellings that count as right."""
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
