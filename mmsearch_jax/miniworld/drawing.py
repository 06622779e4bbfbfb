"""Pictures of invented things. One call draws a thing in two artworks: one for the index and one for scenes.

The artworks differ in shades, proportions and finish, never in the design. Emblems look like flags; monuments and
animals look like photographs. Uses only numpy and Pillow; all randomness comes from the generator passed in.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from mmsearch_jax.miniworld import emblems, views

SIZE = (320, 240)
"""Width and height of an index picture in pixels; a scene artwork may be cropped differently."""


Artworks = tuple[Image.Image, Image.Image]
"""The index artwork and the scene artwork of one thing, RGB."""


def draw_emblem(rng: np.random.Generator) -> Artworks:
    """A flag of an invented land: flat with sharp edges in the index, glossy with other shades in scenes."""
    design = emblems.invent(rng)
    index = emblems.render(design, SIZE)
    glossy = emblems.render(emblems.redraw(design, rng), (SIZE[0], round(SIZE[0] / float(rng.uniform(1.33, 1.55)))))
    return index, _gloss(glossy, rng)


def draw_monument(rng: np.random.Generator) -> Artworks:
    """A photo-like picture of an invented building or statue; the scene artwork is a slightly changed view."""
    return _two_views(views.monument(rng, SIZE), rng)


def draw_animal(rng: np.random.Generator) -> Artworks:
    """A photo-like picture of an invented animal; the scene artwork is a slightly changed view."""
    return _two_views(views.animal(rng, SIZE), rng)


def draw_background(rng: np.random.Generator, size: tuple[int, int] = (448, 336)) -> Image.Image:
    """A photo-like background that shows nothing in particular: sky, land, leaves, water, walls."""
    return views.background(rng, size)


def _two_views(picture: Image.Image, rng: np.random.Generator) -> Artworks:
    """The picture, and the same picture cropped a little tighter with other lighting."""
    width, height = picture.size
    zoom = float(rng.uniform(0.86, 0.96))
    x0, y0 = (float(v) for v in rng.random(2) * (1 - zoom))
    box = (x0 * width, y0 * height, (x0 + zoom) * width, (y0 + zoom) * height)
    scene = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    scene = ImageEnhance.Brightness(scene).enhance(float(rng.uniform(0.88, 1.1)))
    return picture, ImageEnhance.Color(scene).enhance(float(rng.uniform(0.8, 1.15)))


def _gloss(flat: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Adds light from above and dark rims, as on an enamelled badge."""
    width, height = flat.size
    y, x = (np.linspace(0, 1, height, dtype=np.float32)[:, None], np.linspace(0, 1, width, dtype=np.float32)[None])
    strength = float(rng.uniform(0.3, 1.0))
    light = 1.0 + strength * (0.16 - 0.34 * y)
    rim = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    light = light * (1.0 - strength * 0.35 * np.exp(-rim * 30.0))
    pixels = np.asarray(flat, np.float32) * light[..., None]
    sheen = float(rng.uniform(0.0, 36.0)) * strength * (y < 0.5 - 0.12 * np.cos(x * np.pi))
    return Image.fromarray(np.clip(pixels + sheen[..., None], 0, 255).astype(np.uint8))
