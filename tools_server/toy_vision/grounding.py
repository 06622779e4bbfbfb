"""Finds the region that a simple referring expression names: "the flag on the left", "the picture with the most red".

Regions come from `proposals`; words of place, size, colour and kind rank them. If the expression is not understood or nothing
is found, the answer says so and has no box: the caller then uses the whole image.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tools_server.grounders.grounder import NOT_FOUND, Grounding
from tools_server.toy_vision import proposals

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "grey")
_COLOUR_WORDS = {
    **{name: name for name in COLOURS},
    "gray": "grey",
    "gold": "yellow",
    "golden": "yellow",
    "crimson": "red",
    "scarlet": "red",
    "navy": "blue",
    "azure": "blue",
    "violet": "purple",
}
_FLAG_WORDS = frozenset({"flag", "flags", "emblem", "banner", "ensign"})
_PHOTO_WORDS = frozenset(
    {
        "photo",
        "photograph",
        "monument",
        "building",
        "tower",
        "castle",
        "temple",
        "church",
        "statue",
        "landmark",
        "palace",
        "bridge",
        "gate",
        "animal",
        "creature",
        "bird",
        "beast",
    }
)
_ANY_WORDS = frozenset({"picture", "image", "card", "thing", "object", "one", "region"})
_PLACES: dict[str, tuple[float, float]] = {
    "left": (-1, 0),
    "leftmost": (-1, 0),
    "right": (1, 0),
    "rightmost": (1, 0),
    "top": (0, -1),
    "topmost": (0, -1),
    "upper": (0, -1),
    "uppermost": (0, -1),
    "above": (0, -1),
    "bottom": (0, 1),
    "lower": (0, 1),
    "lowest": (0, 1),
    "below": (0, 1),
}
_MIDDLE_WORDS = frozenset({"middle", "center", "centre", "central"})
_LARGE_WORDS = frozenset({"large", "larger", "largest", "big", "bigger", "biggest"})
_SMALL_WORDS = frozenset({"small", "smaller", "smallest", "little"})
_ALL_WORDS = _ANY_WORDS.union(
    _PLACES, _MIDDLE_WORDS, _LARGE_WORDS, _SMALL_WORDS, _COLOUR_WORDS, _FLAG_WORDS, _PHOTO_WORDS
)

_PLACE_WEIGHT, _KIND_WEIGHT, _COLOUR_WEIGHT, _SIZE_WEIGHT = 2.0, 1.2, 2.0, 1.5


@dataclasses.dataclass(frozen=True)
class Expression:
    """What a referring expression requires of a region; empty parts require nothing."""

    direction: tuple[float, float] = (0.0, 0.0)
    middle: bool = False
    size: int = 0
    colours: tuple[str, ...] = ()
    flag: bool | None = None
    understood: bool = False


def parse(text: str) -> Expression:
    """Reads the known words and ignores the rest."""
    found = re.findall(r"[a-z]+", text.lower())
    x = sum(_PLACES[word][0] for word in found if word in _PLACES)
    y = sum(_PLACES[word][1] for word in found if word in _PLACES)
    size = int(any(w in _LARGE_WORDS for w in found)) - int(any(w in _SMALL_WORDS for w in found))
    is_flag = any(w in _FLAG_WORDS for w in found)
    is_photo = any(w in _PHOTO_WORDS for w in found)
    return Expression(
        direction=(float(np.sign(x)), float(np.sign(y))),
        middle=any(w in _MIDDLE_WORDS for w in found),
        size=size,
        colours=tuple(dict.fromkeys(_COLOUR_WORDS[w] for w in found if w in _COLOUR_WORDS)),
        flag=None if is_flag == is_photo else is_flag,
        understood=any(word in _ALL_WORDS for word in found),
    )


def ground(image: Image.Image, text: str) -> Grounding:
    """Finds the region of an image (RGB) that the expression names."""
    wanted = parse(text)
    if not wanted.understood:
        return Grounding(None, f"The words of {text[:60]!r} name no place, size, colour or kind. {NOT_FOUND}")
    boxes = [proposal.box for proposal in proposals.find_pictures(image)]
    if not boxes:
        return Grounding(None, NOT_FOUND)
    scores = np.zeros(len(boxes))
    centres = np.array([((b[0] + b[2]) / 2 / image.width, (b[1] + b[3]) / 2 / image.height) for b in boxes])
    scores += _PLACE_WEIGHT * _place_scores(centres, wanted)
    areas = np.array([(b[2] - b[0]) * (b[3] - b[1]) for b in boxes], float)
    scores += _SIZE_WEIGHT * wanted.size * areas / areas.max()
    if wanted.flag is not None or wanted.colours:
        crops = [_small_crop(image, box) for box in boxes]
        if wanted.flag is not None:
            flatness = np.array([flag_likelihood(crop) for crop in crops])
            scores += _KIND_WEIGHT * (flatness if wanted.flag else 1 - flatness)
        for colour in wanted.colours:
            shares = np.array([colour_shares(crop)[COLOURS.index(colour)] for crop in crops])
            scores += _COLOUR_WEIGHT * shares / max(float(shares.max()), 0.05)
    return Grounding(boxes[int(scores.argmax())])


def _place_scores(centres: np.ndarray, wanted: Expression) -> np.ndarray:
    """How well each centre [n, 2] (fractions of the frame) fits the words of place, in 0..1."""
    if wanted.direction == (0.0, 0.0):
        if not wanted.middle or len(centres) == 1:
            return np.zeros(len(centres))
        # "In the middle" is relative to the pictures: halfway between the outermost along the axis on which they
        # are spread.
        halfway = (centres.max(0) + centres.min(0)) / 2
        axis = int(np.ptp(centres, axis=0).argmax())
        return 1 - np.abs(centres[:, axis] - halfway[axis]) / max(float(np.ptp(centres[:, axis])), 1e-6)
    fits = np.zeros(len(centres))
    directions = 0
    for axis, sign in enumerate(wanted.direction):
        spread = float(np.ptp(centres[:, axis]))
        if sign:
            directions += 1
            # A small spread is not informative: scaled to 1, its noise would outweigh the other words.
            fits += sign * (centres[:, axis] - centres[:, axis].mean()) / max(spread, 0.1) + 0.5
    return fits / directions


def flag_likelihood(crop: np.ndarray) -> float:
    """How much a region looks like a flag (few and strong colours) rather than a photograph, in 0..1.

    Args:
      crop: uint8 [H, W, 3].
    """
    pixels = crop.reshape(-1, 3).astype(np.int16)
    high, low = pixels.max(1), pixels.min(1)
    strong = float(((high - low > 120) | (low > 225) | (high < 45)).mean())
    codes = (pixels // 32) @ np.array([64, 8, 1])
    concentrated = float(np.sort(np.bincount(codes, minlength=512))[-4:].sum()) / len(pixels)
    # Fitted by logistic regression on drawn emblems and drawn photo-like pictures, none of the real ones.
    return float(1 / (1 + np.exp(4.7 - 7.3 * strong - 3.9 * concentrated)))


def colour_shares(crop: np.ndarray) -> np.ndarray:
    """The share of each of `COLOURS` in uint8 pixels [H, W, 3]; float [10], sums to 1."""
    rgb = crop.reshape(-1, 3).astype(np.float32) / 255
    value, low = rgb.max(1), rgb.min(1)
    spread = value - low
    saturation = spread / np.maximum(value, 1e-6)
    safe = np.maximum(spread, 1e-6)
    red, green, blue = rgb.T
    sector = np.where(
        value == red,
        (green - blue) / safe % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = 60 * sector
    index = np.select(
        [
            value < 0.2,
            (saturation < 0.16) & (value > 0.78),
            saturation < 0.16,
            (hue > 10) & (hue < 45) & (value < 0.6),
            hue < 15,
            hue < 42,
            hue < 70,
            hue < 165,
            hue < 258,
            hue < 330,
        ],
        [
            COLOURS.index(c)
            for c in ("black", "white", "grey", "brown", "red", "orange", "yellow", "green", "blue", "purple")
        ],
        COLOURS.index("red"),
    )
    return np.bincount(index, minlength=len(COLOURS)) / max(len(index), 1)


def _small_crop(image: Image.Image, box: Sequence[int]) -> np.ndarray:
    """The region without its outermost 5 %, shrunk to at most 96 x 72."""
    x0, y0, x1, y1 = box
    rim_x, rim_y = (x1 - x0) * 0.05, (y1 - y0) * 0.05
    part = (x0 + rim_x, y0 + rim_y, x1 - rim_x, y1 - rim_y)
    return np.asarray(image.resize((96, 72), Image.Resampling.BILINEAR, box=part))
