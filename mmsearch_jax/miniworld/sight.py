"""Pretraining dialogues about drawn scenes: they teach the tiny base to say what it sees before it sees a tool.

They only ask what the image shows (how many, where, which colour, flag or photo), so that the skill transfers from
drawn emblems to real flags and photographs. A dialogue tells each fact once: if an earlier answer or question contained a
later answer, the policy would learn to copy it instead of to look.

The lessons build on one another. In `describing` the words of a place stand directly before what is there, so that one layer of
attention suffices. `placing` asks for it in a question. `looking` has all forms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from mmsearch_jax.miniworld import colours, questions, scenes
from mmsearch_jax.miniworld.language import Dialogue

WORDS = (
    *colours.NAMES,
    *(
        "What",
        "Which",
        "Where",
        "How",
        "Count",
        "Look",
        "Is",
        "is",
        "are",
        "this",
        "the",
        "a",
        "of",
        "in",
        "on",
        "at",
        "or",
    ),
    *("many", "most", "covers", "main", "colour", "image", "picture", "pictures", "flag", "flags", "photo"),
    *("left", "right", "top", "bottom", "middle"),
)
"""The words of questions about scenes and of their answers. Each needs a token of its own: where a colour is spelled in
pieces, its first piece does not decide which colour it is."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """A composed picture, with the kinds and boxes of what it shows."""

    image: Image.Image
    kinds: Sequence[str]
    boxes: Sequence[scenes.Box]


@dataclasses.dataclass(frozen=True)
class Sight:
    """What a dialogue may say of a scene's pictures: kind, place (None: ambiguous), and the colour that covers most."""

    kinds: Sequence[str]
    places: Sequence[str | None]
    colours: Sequence[str]

    @classmethod
    def of(cls, scene: Scene) -> Sight:
        """The facts of a scene."""
        places = [scenes.spatial_phrase(scene.boxes, i) for i in range(len(scene.boxes))]
        return cls(scene.kinds, places, [colours.dominant_colour(scene.image, box)[0] for box in scene.boxes])

    @property
    def words(self) -> list[str]:
        """What each picture is called."""
        return ["flag" if kind == "flag" else "photo" for kind in self.kinds]

    @property
    def named(self) -> list[int]:
        """The pictures that a question can name: by their place, or because there is no other."""
        return [i for i, place in enumerate(self.places) if place or len(self.kinds) == 1]


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A question with its answer, and the facts that the two contain: ("number",), or ("picture", i)."""

    question: str
    answer: str
    facts: frozenset[tuple[str, int]]


def describing(rng: np.random.Generator, seen: Sight) -> Dialogue | None:
    """The pictures in random order, each as place, colour, kind; None if no picture can be named."""
    order = [seen.named[i] for i in rng.permutation(len(seen.named))]
    told = [f"{seen.places[i] or ''} {seen.colours[i]} {seen.words[i]}".strip() for i in order]
    return Dialogue([("Describe the image.", ", ".join(told))]) if told else None


def placing(rng: np.random.Generator, seen: Sight) -> Dialogue | None:
    """Only questions that pick one picture by its place, or the place of one; None if the scene has no such question."""
    asked = _apart(rng, _places(rng, seen))
    return _dialogue(asked) if asked else None


def looking(rng: np.random.Generator, seen: Sight) -> Dialogue:
    """Every form of question about one scene; the number of pictures comes first, because places hint at it."""
    asked = _apart(rng, [*_places(rng, seen), *_numbers(rng, seen)])
    return _dialogue(sorted(asked, key=lambda each: _NUMBER not in each.facts))


SIGHT_TASKS: Mapping[str, Callable[[np.random.Generator, Sight], Dialogue | None]] = {
    "describing": describing,
    "placing": placing,
    "looking": looking,
}
"""The lessons about scenes by the name of their share in `MixtureConfig`."""

_NUMBER = ("number", 0)


def _places(rng: np.random.Generator, seen: Sight) -> list[_Asked]:
    """Of each picture its colour or, more rarely (it is a guess of two), its kind; and the place of the only flag or photo."""
    found, words = [], seen.words
    everything = frozenset(("picture", i) for i in range(len(words)))
    for i in seen.named:
        place, word, own = seen.places[i], words[i], frozenset({("picture", i)})
        if rng.random() < 0.75:
            expression = f"the {word} {place}" if place else f"this {word}"
            found.append(_Asked(questions.colour_question(rng, expression), seen.colours[i], own))
        else:
            subject = f"the picture {place}" if place else "this"
            found.append(_Asked(f"Is {subject} a flag or a photo?", f"a {word}", own))
        if place and words.count(word) == 1:
            question = questions.where_question(rng) if word == "flag" else "Where is the photo?"
            found.append(_Asked(question, place, everything))
    return found


def _numbers(rng: np.random.Generator, seen: Sight) -> list[_Asked]:
    """The number of pictures, and of flags if some pictures are none."""
    num_flags = list(seen.kinds).count("flag")
    found = [_Asked(questions.count_question(rng), str(len(seen.kinds)), frozenset({_NUMBER}))]
    if 0 < num_flags < len(seen.kinds):
        everything = frozenset(("picture", i) for i in range(len(seen.kinds)))
        found.append(_Asked(questions.count_flags_question(rng), str(num_flags), everything))
    return found


def _apart(rng: np.random.Generator, options: Sequence[_Asked]) -> list[_Asked]:
    """Questions in random order that share no fact.

    Half of the time those about all pictures come first; otherwise they would be rare.
    """
    order = [options[i] for i in rng.permutation(len(options))]
    if rng.random() < 0.5:
        order.sort(key=lambda each: -len(each.facts))
    chosen: list[_Asked] = []
    for option in order:
        if not any(option.facts & each.facts for each in chosen):
            chosen.append(option)
    return chosen


def _dialogue(asked: Sequence[_Asked]) -> Dialogue:
    return Dialogue([(each.question, each.answer) for each in asked])
