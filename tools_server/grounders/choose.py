"""Chooses the region that is searched from a detector's boxes: pure rules, the same for every learned detector."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from mmsearch_jax.core.search_api import Box
from tools_server.grounders.grounder import NOT_FOUND, NOT_SEARCHED, Grounding
from tools_server.settings.detection import DetectionRules

_MAX_DETECTIONS = 2000
"""Further detections are dropped before they are compared: a detector gives 900, and a million would take too long."""


@dataclasses.dataclass(frozen=True)
class Detections:
    """The output of a detector, in any order and unchecked.

    Attributes:
      boxes: float [N, 4], x0, y0, x1, y1 in pixels of the image that was given.
      scores: float [N].
    """

    boxes: np.ndarray
    scores: np.ndarray


def choose(found: Detections, size: tuple[int, int], rules: DetectionRules) -> Grounding:
    """The best detection, padded and within the image, and the others that fit.

    Args:
      size: width and height of the image in pixels.
    """
    kept = [_padded(box, size, rules.padding) for box in _best_first(found, size, rules)]
    if kept:
        return Grounding(kept[0], others=tuple(kept[1:]))
    search_whole = rules.fallback == "whole_image"
    return Grounding(None, NOT_FOUND if search_whole else NOT_SEARCHED, search_whole=search_whole)


def _best_first(found: Detections, size: tuple[int, int], rules: DetectionRules) -> list[np.ndarray]:
    """Boxes [4] that count, without duplicates; as many as a reply lists."""
    boxes, scores = _clipped(found.boxes, size), found.scores
    counts = np.isfinite(found.boxes).all(1) & np.isfinite(scores) & (scores >= rules.box_threshold)
    counts &= (boxes[:, 2:] - boxes[:, :2] >= rules.min_side).all(1)
    order = np.flatnonzero(counts)
    # Stable, so that equal scores keep the detector's own order.
    order = order[np.argsort(-scores[order], kind="stable")][:_MAX_DETECTIONS]
    kept: list[np.ndarray] = []
    for box in boxes[order]:
        if len(kept) > rules.max_others:
            break
        if all(overlap(box, other) <= rules.max_overlap for other in kept):
            kept.append(box)
    return kept


def _clipped(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes [N, 4] with their corners in order and inside the image: any two opposite corners define a region."""
    x = np.sort(boxes[:, 0::2], axis=1).clip(0, size[0])
    y = np.sort(boxes[:, 1::2], axis=1).clip(0, size[1])
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


def _padded(box: np.ndarray, size: tuple[int, int], padding: float) -> Box:
    """The box [4] with padding, rounded outwards to whole pixels, so that nothing that was found is cut off."""
    x0, y0, x1, y1 = (float(value) for value in box)
    # A thousandth of a pixel is rounding error of the model and must not add a pixel.
    right, down = (x1 - x0) * padding - 1e-3, (y1 - y0) * padding - 1e-3
    return (
        max(0, math.floor(x0 - right)),
        max(0, math.floor(y0 - down)),
        min(size[0], math.ceil(x1 + right)),
        min(size[1], math.ceil(y1 + down)),
    )


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes [4]."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared / max(sum(areas) - shared, 1e-9)
