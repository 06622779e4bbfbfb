"""Backgrounds full of things, for scenes that the tiny base's vision tower learns from.

Photographs show buildings, animals and signs that are not pictures of the scene. A tower that has only seen skies and walls
behind its pictures counts them. Here such things are pasted without a card's frame, and with soft edges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmsearch_jax.miniworld.scenes import SIZE


def cluttered(rng: np.random.Generator, background: Image.Image, picture: Callable[[], Image.Image]) -> Image.Image:
    """The background, or a picture in its place, with up to three parts of pictures; `picture` draws one by chance."""
    base = picture() if rng.random() < 0.6 else background
    base = base.convert("RGB").resize(SIZE)
    for _ in range(int(rng.integers(4))):
        scale = rng.uniform(0.15, 0.6)
        width, height = max(8, int(SIZE[0] * scale)), max(8, int(SIZE[1] * scale * rng.uniform(0.6, 1.4)))
        x, y = int(rng.integers(SIZE[0])) - width // 2, int(rng.integers(SIZE[1])) - height // 2
        base.paste(picture().convert("RGB").resize((width, height)), (x, y), _outline(rng, (width, height)))
    return base


def _outline(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """An ellipse, a polygon or a rectangle with soft edges, mode "L"."""
    mask = Image.new("L", size)
    draw, form = ImageDraw.Draw(mask), int(rng.integers(3))
    if form == 0:
        draw.ellipse((0, 0, *size), 255)
    elif form == 1:
        draw.polygon([tuple(corner) for corner in rng.random((int(rng.integers(3, 7)), 2)) * size], 255)
    else:
        draw.rectangle((0, 0, *size), 255)
    return mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.5, 8))))
