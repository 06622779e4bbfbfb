"""Composes scenes (pictures as cards over a background, or one picture that fills the frame) and describes positions.

Works on Pillow images and boxes; knows nothing of entities, questions or files. All randomness comes from the generator
passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the scene; x1 and y1 are exclusive."""

SIZE = (448, 336)
"""Width and height of a scene."""

MAX_PICTURES = 4

PHRASES = (
    "on the left",
    "on the right",
    "at the top",
    "at the bottom",
    "in the middle",
    "at the top left",
    "at the top right",
    "at the bottom left",
    "at the bottom right",
)
"""All phrases that `spatial_phrase` returns."""

# Cells in twelfths of the frame (x0, y0, x1, y1). Pictures never leave their cell, so they never overlap.
_TOP_LEFT, _TOP_RIGHT, _LOW_LEFT, _LOW_RIGHT = (0, 0, 6, 6), (6, 0, 12, 6), (0, 6, 6, 12), (6, 6, 12, 12)
_LAYOUTS: dict[int, list[list[tuple[int, int, int, int]]]] = {
    1: [[(0, 0, 8, 8)], [(4, 0, 12, 8)], [(0, 4, 8, 12)], [(4, 4, 12, 12)], [(2, 2, 10, 10)], [(1, 1, 11, 11)]],
    2: [
        [(0, 2, 6, 10), (6, 2, 12, 10)],
        [(0, 1, 5, 9), (5, 3, 12, 11)],
        [(0, 2, 7, 11), (7, 2, 12, 9)],
        [(2, 0, 10, 6), (2, 6, 10, 12)],
        [_TOP_LEFT, _LOW_RIGHT],
        [_TOP_RIGHT, _LOW_LEFT],
    ],
    3: [
        [(0, 2, 4, 10), (4, 2, 8, 10), (8, 2, 12, 10)],
        [_TOP_LEFT, _TOP_RIGHT, _LOW_LEFT],
        [_TOP_LEFT, _TOP_RIGHT, _LOW_RIGHT],
        [_TOP_LEFT, _LOW_LEFT, _LOW_RIGHT],
        [_TOP_RIGHT, _LOW_LEFT, _LOW_RIGHT],
    ],
    4: [[_TOP_LEFT, _TOP_RIGHT, _LOW_LEFT, _LOW_RIGHT]],
}


def compose(
    pictures: Sequence[Image.Image], background: Image.Image, rng: np.random.Generator, size: tuple[int, int] = SIZE
) -> tuple[Image.Image, list[Box]]:
    """Puts one to four pictures as cards, at different places and sizes, over the background.

    Args:
      pictures: RGB or RGBA, any size.
      background: RGB, any size; it is cut to the frame and slightly blurred.
      rng: chooses layout, places and sizes.
      size: width and height of the scene.

    Returns:
      The scene (RGB) and each picture's box, without its card's border, in the order of `pictures`. Boxes don't overlap.

    Raises:
      ValueError: there is no picture, or there are more than four.
    """
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise ValueError(f"a scene holds 1 to {MAX_PICTURES} pictures, got {len(pictures)}")
    scene = _cut(background.convert("RGB"), size, rng).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.6, 1.8))))
    scene = ImageEnhance.Brightness(scene).enhance(float(rng.uniform(0.7, 1.0)))
    layouts = _LAYOUTS[len(pictures)]
    cells = layouts[int(rng.integers(len(layouts)))]
    order = rng.permutation(len(cells))
    border = int(rng.integers(2, 4))
    white_card = bool(rng.random() < 0.7)
    boxes = []
    for picture, cell in zip(pictures, (cells[i] for i in order), strict=True):
        box = _place(picture.size, cell, size, border, rng)
        _paste_card(scene, picture, box, border, (248, 248, 246) if white_card else (32, 30, 30))
        boxes.append(box)
    return scene, boxes


def full_bleed(picture: Image.Image, rng: np.random.Generator, size: tuple[int, int] = SIZE) -> tuple[Image.Image, Box]:
    """One picture that fills at least 80 % of the frame, with a plain dark or light margin; and its box."""
    width, height = size
    shrink_x, shrink_y = (float(s) for s in rng.uniform(0.9, 1.0, 2))
    box_width, box_height = round(width * shrink_x), round(height * shrink_y)
    x0, y0 = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
    shade = int(rng.choice([24, 120, 236]))
    scene = Image.new("RGB", size, tuple(int(c) for c in np.clip(shade + rng.integers(-12, 13, 3), 0, 255)))
    card = ImageEnhance.Brightness(_cut(_flatten(picture), (box_width, box_height), None))
    scene.paste(card.enhance(float(rng.uniform(0.92, 1.05))), (x0, y0))
    return scene, (x0, y0, x0 + box_width, y0 + box_height)


def spatial_phrase(boxes: Sequence[Box], i: int, size: tuple[int, int] = SIZE) -> str | None:
    """The position of box i among the boxes, as one of `PHRASES`; None if the phrase would be ambiguous.

    Pictures side by side are on the left, in the middle or on the right; pictures above each other are at the top, in
    the middle or at the bottom; others are named by their corner. A single picture needs no phrase: None.
    """
    if len(boxes) < 2:
        return None
    centres = np.array([((x0 + x1) / 2 / size[0], (y0 + y1) / 2 / size[1]) for x0, y0, x1, y1 in boxes])
    spread_x, spread_y = np.ptp(centres, axis=0)
    if spread_y < 0.25 or (len(boxes) == 2 and spread_x >= 0.25):
        return _along(centres[:, 0], i, ("on the left", "in the middle", "on the right"))
    if spread_x < 0.25:
        return _along(centres[:, 1], i, ("at the top", "in the middle", "at the bottom"))
    sides = centres > 0.5
    # A centre close to a midline belongs to no corner.
    if np.abs(centres[i] - 0.5).min() < 0.07 or int((sides == sides[i]).all(1).sum()) > 1:
        return None
    right, low = sides[i]
    return f"at the {'bottom' if low else 'top'} {'right' if right else 'left'}"


def _along(places: np.ndarray, i: int, phrases: tuple[str, str, str]) -> str | None:
    """The phrase for box i on one axis; None unless its centre is at least 0.15 from its neighbours' centres."""
    if np.abs(np.delete(places, i) - places[i]).min() < 0.15:
        return None
    before, behind = int((places < places[i]).sum()), int((places > places[i]).sum())
    if before == 0:
        return phrases[0]
    if behind == 0:
        return phrases[2]
    return phrases[1] if before == behind else None


def _place(
    picture: tuple[int, int],
    cell: tuple[int, int, int, int],
    size: tuple[int, int],
    border: int,
    rng: np.random.Generator,
) -> Box:
    """A box of the picture's aspect ratio at a random place and size within its cell."""
    x0, y0 = cell[0] * size[0] // 12, cell[1] * size[1] // 12
    x1, y1 = cell[2] * size[0] // 12, cell[3] * size[1] // 12
    room_x, room_y = x1 - x0 - 2 * border - 8, y1 - y0 - 2 * border - 8
    # The limits distort very wide or tall pictures a little, so that they do not become slivers.
    aspect = min(max(picture[0] / picture[1], 0.7), 1.8)
    scale = min(room_x / aspect, room_y) * float(rng.uniform(0.78, 1.0))
    width, height = max(8, round(scale * aspect)), max(8, round(scale))
    left = x0 + border + 4 + int(rng.integers(max(1, room_x - width + 1)))
    top = y0 + border + 4 + int(rng.integers(max(1, room_y - height + 1)))
    return left, top, left + width, top + height


def _paste_card(scene: Image.Image, picture: Image.Image, box: Box, border: int, colour: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = box
    shadow = (x0 - border + 3, y0 - border + 4, x1 + border + 3, y1 + border + 4)
    region = scene.crop(shadow)
    scene.paste(Image.blend(region, Image.new("RGB", region.size), 0.45), shadow[:2])
    scene.paste(colour, (x0 - border, y0 - border, x1 + border, y1 + border))
    small = _flatten(picture).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, reducing_gap=2.0)
    scene.paste(small, (x0, y0))


def _flatten(picture: Image.Image) -> Image.Image:
    """The picture as RGB; transparent parts become white."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    flat = Image.new("RGB", picture.size, (255, 255, 255))
    flat.paste(picture, mask=picture.getchannel("A"))
    return flat


def _cut(picture: Image.Image, size: tuple[int, int], rng: np.random.Generator | None) -> Image.Image:
    """The largest crop with the frame's aspect ratio, resized to the frame; `rng` moves it and zooms in at random."""
    width, height = picture.size
    scale = min(width / size[0], height / size[1])
    if rng is not None:
        scale *= float(rng.uniform(0.75, 1.0))
    part = (size[0] * scale, size[1] * scale)
    at = rng.random(2) if rng is not None else np.array([0.5, 0.5])
    x0, y0 = float((width - part[0]) * at[0]), float((height - part[1]) * at[1])
    box = (max(x0, 0.0), max(y0, 0.0), min(x0 + part[0], width), min(y0 + part[1], height))
    return picture.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
