"""What the tiny base learns of pictures before it ever sees a tool: dialogues about drawn scenes.

Only what looking alone can tell is asked (how many, where, which colour, flag or photo), so what is learnt on drawn emblems
carries over to real flags and photographs.
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
    """A composed picture and what stands where in it."""

    image: Image.Image
    kinds: Sequence[str]
    boxes: Sequence[scenes.Box]


def looking(rng: np.random.Generator, scene: Scene) -> Dialogue:
    """Every question that looking at a scene answers, in random order, and what stands where."""
    options = questions.visual(rng, scene.image, scene.kinds, scene.boxes)
    turns = [(question.text, question.answers[0]) for question in options]
    for i, kind in enumerate(scene.kinds):
        phrase = scenes.spatial_phrase(scene.boxes, i)
        if phrase and len(scene.kinds) > 1:
            turns.append((f"What is {phrase}, a flag or a photo?", "a flag" if kind == "flag" else "a photo"))
    shuffled = [turns[i] for i in rng.permutation(len(turns))]
    return Dialogue([_colour_map(scene.image), *shuffled], scene.image)


def _colour_map(image: Image.Image) -> tuple[str, str]:
    """The main colour of each ninth of the image: dense supervision that teaches the tower where and what to look at."""
    columns, rows = (image.width / 3, image.height / 3)
    named = [
        colours.dominant_colour(image, (int(x * columns), int(y * rows), int((x + 1) * columns), int((y + 1) * rows)))[
            0
        ]
        for y in range(3)
        for x in range(3)
    ]
    return "Which colours are there, row by row?", " ".join(named)
