"""Finds the framed pictures in an image: rectangles with a thin rim of one colour that contrasts with what
is next to it.

Method: along columns and rows, find straight runs of one brightness, two pixels wide, with a step on the
outer side (rim against background) or the inner side (picture against rim): on a dark wall a dark frame shows
only the inner one. A left and a right run, with a top and a bottom row between them, make a rectangle; its
score is the share of its rim that is present, and of rectangles that overlap the best is kept. Works on pixels
only, with numpy; independent of expressions.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from PIL import Image
from scipy import ndimage

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 exclusive."""

WORK_WIDTH = 448
"""Larger images are shrunk to this width before the search."""
_MIN_SIDE = 36
"""Smallest side of a picture, in pixels of the working size."""
_OUTER_STEP, _INNER_STEP = 11, 15
"""Smallest differences (maximum over Y, Cb, Cr; 0..255) between a rim and what is outside, and inside it."""
_RIM_LEVELS = (248, 31)
"""Brightness of the frames that are searched: white card, black card."""
_SAME_BRIGHTNESS, _SAME_TINT = 18, 64
"""Largest differences within one rim in Y, and in Cb and Cr (which JPEG smears over a rim that is two pixels
wide)."""
_MIN_SUPPORT = 0.62
_MAX_RIM = 7
_MAX_RUNS = 150


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A framed picture: its box without the rim, and the share of its rim that was found on its worst side
    (0..1)."""

    box: Box
    support: float


@dataclasses.dataclass(frozen=True)
class _Run:
    """A straight run of rim pixels: in column (or row) `at`, from `start` to `end`, exclusive."""

    at: int
    start: int
    end: int


_Candidate = tuple[float, Box, int]
"""Support, box with the rim, the rim's brightness."""


def find_pictures(image: Image.Image) -> list[Proposal]:
    """The framed pictures of an image, from left to right; none overlaps another."""
    scale = max(1.0, image.width / WORK_WIDTH)
    if scale > 1.0:
        image = image.resize((WORK_WIDTH, max(1, round(image.height / scale))), Image.Resampling.BOX)
    pixels = np.asarray(image.convert("YCbCr"), np.int16)
    if min(pixels.shape[:2]) < _MIN_SIDE + 8:
        return []
    steps = _Steps(pixels)
    candidates = [candidate for level in _RIM_LEVELS for candidate in _framed(pixels, steps, level)]
    found = [
        Proposal(_scaled(_without_rim(pixels, box, level), scale), support)
        for support, box, level in _without_overlaps(candidates)
    ]
    return sorted(found, key=lambda proposal: proposal.box)


class _Steps:
    """Where the image steps along x and along y, bool [H, W]: `outer` between a pixel and the second one
    before it, `inner` between a pixel and the fourth one behind it, for rims seen from either end."""

    def __init__(self, pixels: np.ndarray):
        planes = [np.ascontiguousarray(pixels[..., i]) for i in range(3)]
        self.sides = [self._from_both_ends(planes), self._from_both_ends([plane.T for plane in planes])]

    @staticmethod
    def _from_both_ends(planes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        height, width = planes[0].shape
        near = np.maximum.reduce([np.abs(plane[:, 2:] - plane[:, :-2]) for plane in planes]) > _OUTER_STEP
        far = np.maximum.reduce([np.abs(plane[:, 4:] - plane[:, :-4]) for plane in planes]) > _INNER_STEP
        first, last = np.ones((height, width), bool), np.ones((height, width), bool)
        first[:, 2:] = near
        first[:, :-4] |= far
        last[:, :-2] = near
        last[:, 4:] |= far
        return first, last


def _framed(pixels: np.ndarray, steps: _Steps, level: int) -> list[_Candidate]:
    """The rectangles whose rim is of the given brightness."""
    rim = np.abs(pixels[..., 0] - level) < _SAME_BRIGHTNESS
    rim &= np.abs(pixels[..., 1] - 128) < _SAME_TINT
    rim &= np.abs(pixels[..., 2] - 128) < _SAME_TINT
    # Each map says where a rim's outermost pixel may be, for one side of a frame. The last two are turned:
    # [W, H].
    maps = [*_rim_starts(rim, steps.sides[0]), *_rim_starts(np.ascontiguousarray(rim.T), steps.sides[1])]
    lefts, rights, tops, bottoms = (_runs(side) for side in maps)
    if not (lefts and rights and tops and bottoms):
        return []
    sums = [np.cumsum(np.pad(side, ((1, 0), (0, 0))), axis=0, dtype=np.int32) for side in maps]
    tops, bottoms = _as_columns(tops), _as_columns(bottoms)
    found = []
    for left, right in itertools.product(lefts, rights):
        if right.at - left.at < _MIN_SIDE or not _fit_together(left, right):
            continue
        uppers, lowers = _crossing(tops, left, right), _crossing(bottoms, left, right)
        for top, bottom in itertools.product(uppers.tolist(), lowers.tolist()):
            if bottom - top < _MIN_SIDE:
                continue
            box = (left.at, top, right.at + 1, bottom + 1)
            support = min(
                _share(sums[0], left.at, top, bottom + 1),
                _share(sums[1], right.at, top, bottom + 1),
                _share(sums[2], top, left.at, right.at + 1),
                _share(sums[3], bottom, left.at, right.at + 1),
            )
            if support >= _MIN_SUPPORT:
                found.append((support, box, level))
    return found


def _share(sums: np.ndarray, at: int, start: int, end: int) -> float:
    """The share of true pixels of a line from `start` to `end`; `sums` are the running counts along axis
    0."""
    return float(sums[end, at] - sums[start, at]) / (end - start)


def _rim_starts(rim: np.ndarray, steps: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where the outermost pixel of a left, and of a right side may be: two rim pixels next to a step."""
    pair = rim[:, :-1] & rim[:, 1:]
    first, last = steps[0].copy(), steps[1].copy()
    first[:, :-1] &= pair
    last[:, 1:] &= pair
    first[:, -1], last[:, 0] = False, False
    return first, last


def _runs(starts: np.ndarray) -> list[_Run]:
    """Vertical runs, closed over small gaps; the longest ones."""
    closed = ndimage.maximum_filter1d(starts.astype(np.uint8), 9, axis=0)
    closed = ndimage.minimum_filter1d(closed, 9, axis=0)
    edges = np.diff(np.pad(closed.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    columns, begins = np.nonzero(edges.T == 1)
    _, ends = np.nonzero(edges.T == -1)
    long = np.flatnonzero(ends - begins >= 0.75 * _MIN_SIDE)
    order = long[np.argsort(begins[long] - ends[long], kind="stable")][:_MAX_RUNS]
    return [_Run(int(columns[i]), int(begins[i]), int(ends[i])) for i in order]


def _fit_together(a: _Run, b: _Run) -> bool:
    """Whether two opposite runs may be sides of one rectangle."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    return shared > 0.8 * min(a.end - a.start, b.end - b.start)


def _as_columns(runs: list[_Run]) -> np.ndarray:
    return np.array([(run.at, run.start, run.end) for run in runs])


def _crossing(runs: np.ndarray, left: _Run, right: _Run) -> np.ndarray:
    """The rows of the horizontal runs (at, start, end) that may join the ends of two sides."""
    at, start, end = runs.T
    covered = np.minimum(end, right.at + 1) - np.maximum(start, left.at)
    fits = (at >= min(left.start, right.start) - 8) & (at <= max(left.end, right.end) + 8)
    return at[fits & (covered > 0.6 * (right.at - left.at))]


def _without_overlaps(candidates: list[_Candidate]) -> list[_Candidate]:
    """Of rectangles that overlap, the one with the best support; size adds to it, because pictures contain rectangles
    themselves."""
    kept: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda c: -(c[0] + 0.002 * np.sqrt(_area(c[1])))):
        if all(_shared(candidate[1], other[1]) < 0.1 * min(_area(candidate[1]), _area(other[1])) for other in kept):
            kept.append(candidate)
    return kept


def _without_rim(pixels: np.ndarray, box: Box, level: int) -> Box:
    """The box without its rim, whose width is taken from the side on which it is found best."""
    x0, y0, x1, y1 = box
    region = pixels[y0:y1, x0:x1, 0]
    widths = []
    for side in (region, region[:, ::-1], region.T, region.T[:, ::-1]):
        shares = (np.abs(side[:, :_MAX_RIM] - level) < _SAME_BRIGHTNESS).mean(0)
        widths.append(int(np.argmax(shares < 0.6)) if (shares < 0.6).any() else _MAX_RIM)
    rim = min(widths)
    return x0 + rim, y0 + rim, x1 - rim, y1 - rim


def _scaled(box: Box, scale: float) -> Box:
    x0, y0, x1, y1 = (round(v * scale) for v in box)
    return x0, y0, x1, y1


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _shared(a: Box, b: Box) -> int:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
