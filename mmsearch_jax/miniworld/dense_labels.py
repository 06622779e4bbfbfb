"""What every image token of a scene shows: the labels from which the tiny base's vision tower learns.

A token covers a square of the scene. Its labels say which colours are in the square, and about the picture that the square
belongs to: kind, main colour, place and box. Pure NumPy; knows nothing of models.
Legend: H, W height and width in pixels; T tokens of a scene, row by row; n pictures.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from mmsearch_jax.miniworld import colours, scenes

KINDS = ("background", "flag", "monument", "animal")
PLACES = (*scenes.PHRASES, "")
"""The places of pictures; "" is a place that no phrase names."""

_STRIDE = 2
_LEAST_COVER = 0.35
_CLEAR_COLOUR = 0.4


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A scene as the vision tower gets it.

    Attributes:
      image: uint8 [H, W, 3].
      kinds: of its n pictures.
      boxes: float32 [n, 4], x0, y0, x1, y1 in pixels of `image`.
    """

    image: UInt8[np.ndarray, "H W 3"]
    kinds: tuple[str, ...]
    boxes: Float32[np.ndarray, "n 4"]


class DenseLabels(NamedTuple):
    """The labels of a scene's T tokens.

    Attributes:
      shares: float32 [T, colours], share of each colour of `colours.NAMES` in the token.
      kind: int32 [T], index into `KINDS`.
      inside: float32 [T], 1 where the token belongs to a picture. Only there the following are meant.
      colour, has_colour: int32, float32 [T], the picture's main colour, and 1 if it is clear.
      place: int32 [T], index into `PLACES`.
      edges: float32 [T, 4], the picture's box relative to the token's centre, in half image widths.
      centre: float32 [T, 2], the picture's centre as a share of width and height.
      num_pictures, num_flags: int32 [T], the same at all tokens; pictures are counted from 1, so the index is one less.
    """

    shares: Float32[np.ndarray, "T colours"]
    kind: Int32[np.ndarray, "T"]
    inside: Float32[np.ndarray, "T"]
    colour: Int32[np.ndarray, "T"]
    has_colour: Float32[np.ndarray, "T"]
    place: Int32[np.ndarray, "T"]
    edges: Float32[np.ndarray, "T 4"]
    centre: Float32[np.ndarray, "T 2"]
    num_pictures: Int32[np.ndarray, "T"]
    num_flags: Int32[np.ndarray, "T"]


def label(scene: Pixels, token: int) -> DenseLabels:
    """The labels of a scene whose tokens are squares of `token` pixels; H and W are multiples of it."""
    height, width = scene.image.shape[:2]
    names = colours.colour_indices(scene.image[::_STRIDE, ::_STRIDE])
    across, down = (np.arange(size // token) * token + token / 2 for size in (width, height))
    owner = _owners(scene.boxes, across, down, token)
    boxes = scene.boxes[np.maximum(owner, 0)]
    main, clear = np.array([_main_colour(names, box) for box in scene.boxes]).T
    phrases = [scenes.spatial_phrase([tuple(box) for box in scene.boxes], i, (width, height)) for i in range(len(main))]
    kinds = np.array([KINDS.index(kind) for kind in scene.kinds])
    centres = np.stack(np.broadcast_arrays(across, down[:, None]), -1).reshape(-1, 2)
    inside, whose = owner >= 0, np.maximum(owner, 0)
    count, flags = len(scene.kinds), scene.kinds.count("flag")
    return DenseLabels(
        _shares(names, token // _STRIDE),
        np.where(inside, kinds[whose], 0).astype(np.int32),
        inside.astype(np.float32),
        main[whose].astype(np.int32),
        (clear[whose] * inside).astype(np.float32),
        np.array([PLACES.index(phrase or "") for phrase in phrases], np.int32)[whose],
        ((boxes - np.tile(centres, 2)) / (width / 2)).astype(np.float32),
        ((boxes[:, :2] + boxes[:, 2:]) / 2 / (width, height)).astype(np.float32),
        np.full(len(owner), count - 1, np.int32),
        np.full(len(owner), flags, np.int32),
    )


def _owners(boxes: np.ndarray, across: np.ndarray, down: np.ndarray, token: int) -> np.ndarray:
    """int [T]: the picture that a token belongs to, -1 for the background. Every picture has at least one token."""
    owner = np.full((len(down), len(across)), -1)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        wide = np.minimum(across + token / 2, x1) - np.maximum(across - token / 2, x0)
        high = np.minimum(down + token / 2, y1) - np.maximum(down - token / 2, y0)
        cover = np.maximum(high, 0)[:, None] * np.maximum(wide, 0) / token**2
        owner[cover >= min(_LEAST_COVER, cover.max())] = i
    return owner.reshape(-1)


def _shares(names: np.ndarray, side: int) -> np.ndarray:
    """float32 [T, colours] from a colour index per pixel; a token has side x side of them."""
    rows, columns = names.shape[0] // side, names.shape[1] // side
    squares = names.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    return (squares[..., None] == np.arange(len(colours.NAMES))).mean(1, dtype=np.float32)


def _main_colour(names: np.ndarray, box: np.ndarray) -> tuple[int, bool]:
    """The colour that covers most of a box without its rim of 4 %, and whether it covers enough to be clear."""
    rim = (box[2:] - box[:2]) * 0.04
    (x0, y0), (x1, y1) = ((box[:2] + rim) / _STRIDE).astype(int), ((box[2:] - rim) / _STRIDE).astype(int)
    part = names[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    counts = np.bincount(part.ravel(), minlength=len(colours.NAMES))
    return int(counts.argmax()), counts.max() >= _CLEAR_COLOUR * counts.sum()
