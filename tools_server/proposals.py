"""Finds the framed pictures in an image: rectangles with a thin rim of one colour that stands out from what lies around.

Method: along each row and column, find straight runs where a flat rim begins (a step from outside to a colour that stays
the same along the run); join a left and a right run, and a top and a bottom one, into a rectangle; keep the rectangles
whose four sides are all there. Works on pixels alone, with numpy; knows nothing of expressions.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 exclusive."""

WORK_WIDTH = 448
"""Larger images are made this wide before the search."""
_MIN_SIDE = 40
_STEP = 16.0
"""Least difference (largest channel, 0..255) between a rim and what lies outside it."""
_SAME = 26.0
"""Most difference between two pixels of one rim."""
_MIN_SUPPORT = 0.72
_MAX_RIM = 8


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A framed picture: its box without the rim, and how much of its four sides was seen (0..1)."""

    box: Box
    support: float


@dataclasses.dataclass(frozen=True)
class _Side:
    """A straight run of rim pixels: at row or column `at`, from `start` to `end` (exclusive), of one colour."""

    at: int
    start: int
    end: int
    colour: np.ndarray


def find_pictures(image: Image.Image) -> list[Proposal]:
    """The framed pictures of an image (RGB), from left to right; none overlaps another."""
    scale = max(1.0, image.width / WORK_WIDTH)
    if scale > 1.0:
        image = image.resize((WORK_WIDTH, max(1, round(image.height / scale))), Image.Resampling.BOX)
    pixels = np.asarray(image.convert("RGB"), np.int16)
    if min(pixels.shape[:2]) < _MIN_SIDE:
        return []
    lefts, rights = _sides(pixels), _mirrored(_sides(pixels[:, ::-1]), pixels.shape[1])
    candidates = []
    for left in lefts:
        for right in rights:
            candidate = _join(pixels, left, right)
            if candidate is not None:
                candidates.append(candidate)
    kept = _without_overlaps(candidates)
    found = [Proposal(_scaled(_inside(pixels, box, colour), scale, image), support) for support, box, colour in kept]
    return sorted(found, key=lambda proposal: proposal.box)


def _sides(pixels: np.ndarray) -> list[_Side]:
    """Vertical runs at which a rim begins, seen from the left."""
    step = np.abs(pixels[:, 1:] - pixels[:, :-1]).max(-1)
    # A rim of 2 px is flat to its second pixel; JPEG may blur it, so either neighbour may show the step.
    flat = np.zeros(step.shape, bool)
    flat[:, :-1] = np.abs(pixels[:, 2:] - pixels[:, 1:-1]).max(-1) < _SAME
    starts = (step > _STEP) & flat
    along = np.abs(np.diff(pixels[:, 1:], axis=0)).max(-1) < _SAME
    sides = []
    for column in np.flatnonzero(starts.sum(0) >= _MIN_SIDE // 2):
        sides += _runs(starts[:, column], along[:, column], pixels[:, column + 1], int(column) + 1)
    return sides


def _runs(starts: np.ndarray, along: np.ndarray, line: np.ndarray, at: int) -> list[_Side]:
    """Stretches of a line on which the colour stays the same and most pixels begin a rim."""
    breaks = np.flatnonzero(~along) + 1
    edges = [0, *breaks.tolist(), len(line)]
    runs = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        if end - start < _MIN_SIDE * 0.6:
            continue
        hits = np.flatnonzero(starts[start:end])
        if len(hits) < 0.35 * (end - start):
            continue
        runs.append(_Side(at, start, end, np.median(line[start:end], axis=0)))
    return runs


def _mirrored(sides: list[_Side], width: int) -> list[_Side]:
    return [dataclasses.replace(side, at=width - 1 - side.at) for side in sides]


def _join(pixels: np.ndarray, left: _Side, right: _Side) -> tuple[float, Box, np.ndarray] | None:
    """The rectangle between two sides (support, box with rim, colour), or None where the sides don't belong together."""
    if right.at - left.at < _MIN_SIDE or np.abs(left.colour - right.colour).max() > _SAME:
        return None
    start, end = max(left.start, right.start), min(left.end, right.end)
    if end - start < _MIN_SIDE * 0.6 or abs(left.start - right.start) > 6 and abs(left.end - right.end) > 6:
        return None
    colour = (left.colour + right.colour) / 2
    top = _crossing(pixels, colour, left, right, min(left.start, right.start), start + 6, 1)
    bottom = _crossing(pixels, colour, left, right, max(left.end, right.end) - 1, end - 7, -1)
    if top is None or bottom is None or bottom[0] - top[0] < _MIN_SIDE:
        return None
    y0, y1 = top[0], bottom[0] + 1
    rows = slice(y0, y1)
    upright = [_share(pixels[rows, at], colour) for at in (left.at, right.at)]
    support = min(top[1], bottom[1], *upright)
    if support < _MIN_SUPPORT:
        return None
    return support, (left.at, y0, right.at + 1, y1), colour


def _crossing(
    pixels: np.ndarray, colour: np.ndarray, left: _Side, right: _Side, first: int, last: int, step: int
) -> tuple[int, float] | None:
    """The outermost row (row, share of rim colour) that joins the two sides, looked for from `first` to `last`."""
    height = len(pixels)
    for row in range(first - 2 * step, last + step, step):
        if not 0 <= row < height:
            continue
        inside = _share(pixels[row, left.at : right.at + 1], colour)
        if inside >= _MIN_SUPPORT:
            return row, inside
    return None


def _share(line: np.ndarray, colour: np.ndarray) -> float:
    return float((np.abs(line - colour).max(-1) < _SAME).mean())


def _without_overlaps(candidates: list[tuple[float, Box, np.ndarray]]) -> list[tuple[float, Box, np.ndarray]]:
    """Of rectangles that overlap, the one with the most seen of it; a rectangle inside another belongs to the picture."""
    kept: list[tuple[float, Box, np.ndarray]] = []
    for candidate in sorted(candidates, key=lambda c: -(c[0] + 0.3 * np.sqrt(_area(c[1])) / 100)):
        if all(_shared(candidate[1], other[1]) < 0.1 * min(_area(candidate[1]), _area(other[1])) for other in kept):
            kept.append(candidate)
    return kept


def _inside(pixels: np.ndarray, box: Box, colour: np.ndarray) -> Box:
    """The box without its rim; the rim's width is that of the side where it is seen best."""
    x0, y0, x1, y1 = box
    widths = []
    for strip in (
        pixels[y0:y1, x0:x1],
        pixels[y0:y1, x0:x1][:, ::-1],
        pixels[y0:y1, x0:x1].swapaxes(0, 1),
        pixels[y0:y1, x0:x1].swapaxes(0, 1)[:, ::-1],
    ):
        shares = [_share(strip[:, i], colour) for i in range(min(_MAX_RIM, strip.shape[1]))]
        widths.append(next((i for i, share in enumerate(shares) if share < 0.6), _MAX_RIM))
    rim = min(widths)
    return x0 + rim, y0 + rim, x1 - rim, y1 - rim


def _scaled(box: Box, scale: float, image: Image.Image) -> Box:
    if scale == 1.0:
        return box
    x0, y0, x1, y1 = (round(v * scale) for v in box)
    return x0, y0, x1, y1


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _shared(a: Box, b: Box) -> int:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
