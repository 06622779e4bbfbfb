"""Changes of a scene's pixels by chance: mirrored, other colours, other light, texture, grain.

A tower that sees every scene in one form only learns the drawings' own shades and fails on photographs. What a scene
shows does not change, except for places (mirrored) and colours; labels are made from the changed scene.
"""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image

from mmsearch_jax.miniworld.dense_labels import Pixels

_CHANNEL_ORDERS = tuple(itertools.permutations(range(3)))


def distort(rng: np.random.Generator, scene: Pixels) -> Pixels:
    """The scene after a random choice of changes."""
    image, boxes = scene.image.astype(np.float32), scene.boxes
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        image, boxes = image[:, ::-1], np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    if rng.random() < 0.5:
        image = image[..., _CHANNEL_ORDERS[int(rng.integers(len(_CHANNEL_ORDERS)))]]
    if rng.random() < 0.7:
        mean = image.mean()
        cast = rng.uniform(0.75, 1.25) * rng.uniform(0.88, 1.12, 3)
        image = ((image - mean) * rng.uniform(0.8, 1.2) + mean) * cast.astype(np.float32)
    if rng.random() < 0.3:
        cells = rng.normal(0, rng.uniform(4, 22), (int(rng.integers(4, 42)), int(rng.integers(5, 56))))
        texture = Image.fromarray(cells.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        image = image + np.asarray(texture)[..., None]
    if rng.random() < 0.5:
        image = image + rng.normal(0, rng.uniform(1, 8), (height, width, 1)).astype(np.float32)
    return Pixels(np.clip(image, 0, 255).astype(np.uint8), scene.kinds, boxes)
