"""Pretraining dialogues about drawn scenes: they teach the tiny base to see before it sees a tool.

They only ask what the image shows (how many, where, which colour, flag or photo), so that the skill transfers from
drawn emblems to real flags and photographs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmsearch_jax.miniworld import colours, questions, scenes
from mmsearch_jax.miniworld.language import Dialogue


@dataclasses.dataclass(frozen=True)
class Scene:
    """A composed picture, with the kinds and boxes of what it shows."""

    image: Image.Image
    kinds: Sequence[str]
    boxes: Sequence[scenes.Box]


def looking(rng: np.random.Generator, scene: Scene) -> Dialogue:
    """A description, the colour map, and every question that the scene's image answers, in random order."""
    options = questions.visual(rng, scene.image, scene.kinds, scene.boxes)
    turns = [(question.text, question.answers[0]) for question in options]
    phrases = [scenes.spatial_phrase(scene.boxes, i) for i in range(len(scene.kinds))]
    words = ["flag" if kind == "flag" else "photo" for kind in scene.kinds]
    for i, (word, phrase) in enumerate(zip(words, phrases, strict=True)):
        if not phrase:
            continue
        turns.append((f"What is {phrase}, a flag or a photo?", f"a {word}"))
        if word == "photo" and words.count("photo") == 1:
            turns.append(("Where is the photo?", phrase))
        if word == "photo" and (colour := _main_colour(scene, i)):
            turns.append((f"What is the main colour of the photo {phrase}?", colour))
    turns += [_description(scene, words, phrases), _colour_map(scene.image)]
    return Dialogue([turns[i] for i in rng.permutation(len(turns))], scene.image)


def _description(scene: Scene, words: Sequence[str], phrases: Sequence[str | None]) -> tuple[str, str]:
    """All pictures with place and main colour, from left and top; the answer connects image regions to words."""
    order = sorted(range(len(words)), key=lambda i: scenes.PHRASES.index(phrases[i] or scenes.PHRASES[-1]))
    named = [
        " ".join(part for part in ("a", _main_colour(scene, i), words[i], phrases[i] or "") if part) for i in order
    ]
    return "Describe the image.", f"{len(words)}: {', '.join(named)}"


def _main_colour(scene: Scene, i: int) -> str:
    name, share = colours.dominant_colour(scene.image, scene.boxes[i])
    return name if share >= questions.COLOUR_SHARE else ""


def _colour_map(image: Image.Image) -> tuple[str, str]:
    """The main colour of each ninth of the image: dense supervision of the vision tower for position and colour."""
    columns, rows = (image.width / 3, image.height / 3)
    named = [
        colours.dominant_colour(image, (int(x * columns), int(y * rows), int((x + 1) * columns), int((y + 1) * rows)))[
            0
        ]
        for y in range(3)
        for x in range(3)
    ]
    return "Which colours are there, row by row?", " ".join(named)
