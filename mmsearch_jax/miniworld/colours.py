"""Everyday colour names of a shade, of an array of pixels, and of a region's main colour.

Uses hand-set borders in hue, saturation and value; knows nothing of flags or scenes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

NAMES = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "grey")
_RED, _ORANGE, _YELLOW, _GREEN, _BLUE, _PURPLE, _BROWN, _BLACK, _WHITE, _GREY = range(len(NAMES))


def colour_indices(pixels: np.ndarray) -> np.ndarray:
    """Index into `NAMES` for each pixel; pixels [..., 3] in 0..255 -> int8 [...]."""
    rgb = pixels.astype(np.float32) / 255.0
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = rgb.max(-1)
    spread = value - rgb.min(-1)
    saturation = spread / np.maximum(value, 1e-6)
    safe = np.maximum(spread, 1e-6)
    hue = np.where(
        value == red,
        (green - blue) / safe % 6.0,
        np.where(value == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hue = hue * 60.0
    # Borders in degrees. Blue includes cyan, because no question asks for "cyan".
    names = np.searchsorted(np.array([15.0, 40.0, 70.0, 165.0, 255.0, 330.0]), hue, side="right").astype(np.int8)
    names = np.where(names == 6, _RED, names)
    names = np.where((hue >= 12) & (hue < 45) & (value < 0.62) & (saturation > 0.3), _BROWN, names)
    names = np.where((saturation < 0.15) | ((saturation < 0.25) & (value < 0.45)), _GREY, names)
    names = np.where((saturation < 0.15) & (value > 0.8), _WHITE, names)
    return np.where(value < 0.22, _BLACK, names).astype(np.int8)


def dominant_colour(image: Image.Image, box: tuple[int, int, int, int] | None = None) -> tuple[str, float]:
    """The colour that covers most of a region, and the share (0..1) of the region that it covers.

    Args:
      image: RGB.
      box: x0, y0, x1, y1 in pixels; None: the whole image. A rim of 4 % is left out, because a box that is slightly
        too wide contains background.
    """
    x0, y0, x1, y1 = box or (0, 0, *image.size)
    rim_x, rim_y = (x1 - x0) * 0.04, (y1 - y0) * 0.04
    region = image.resize((48, 36), Image.Resampling.BOX, box=(x0 + rim_x, y0 + rim_y, x1 - rim_x, y1 - rim_y))
    counts = np.bincount(colour_indices(np.asarray(region.convert("RGB"))).ravel(), minlength=len(NAMES))
    best = int(counts.argmax())
    return NAMES[best], float(counts[best] / counts.sum())
