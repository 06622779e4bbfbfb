"""Trajectories and their rows to the numbers of a summary: accuracy with intervals, by kind, and the use of tools.

Pure functions. Episodes that broke through no fault of the policy (a dead server) are counted apart and never scored.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from mmsearch_jax.data.schema import KINDS, Row
from mmsearch_jax.rewards.match import matches
from mmsearch_jax.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question, what the policy made of it, and whether that is right (None: an infrastructure failure)."""

    row: Row
    trajectory: Trajectory
    correct: bool | None


def score(row: Row, trajectory: Trajectory) -> Sample:
    """Compares the answer with the row's gold answers."""
    if trajectory.infrastructure_failure:
        return Sample(row, trajectory, None)
    return Sample(row, trajectory, trajectory.status == "answered" and matches(trajectory.answer, row.answers))


def summarise(samples: Sequence[Sample], **identity: Any) -> dict[str, Any]:
    """The summary of an evaluation; `identity` (benchmark, mode, checkpoint, ...) is put in front."""
    scored = [sample for sample in samples if sample.correct is not None]
    free = [sample for sample in scored if not sample.row.search_required]
    required = [sample for sample in scored if sample.row.search_required]
    crowded = [sample for sample in scored if sample.row.kind == "crop" and sample.row.num_entities >= 3]
    calls = [sample.trajectory.tool_calls() for sample in scored]
    right = sum(bool(sample.correct) for sample in scored)
    grounded = [iou for sample in scored if (iou := _grounding_iou(sample)) is not None]
    return {
        **identity,
        "n": len(scored),
        "accuracy": _share(right, len(scored)),
        "ci95": wilson_interval(right, len(scored)),
        "by_kind": {kind: _accuracy([s for s in scored if s.row.kind == kind]) for kind in KINDS},
        "search_required": _accuracy(required),
        "search_free": _accuracy(free),
        "crop_3_or_more_entities": _accuracy(crowded),
        "searches_per_question": _share(sum(map(len, calls)), len(scored)),
        "needless_search_rate": _share(sum(bool(s.trajectory.tool_calls()) for s in free), len(free)),
        "searches_by_tool": {
            "text": _share(sum(r.tool == "text_search" for c in calls for r in c), len(scored)),
            "whole_image": _share(
                sum(r.tool == "image_search" and r.query is None for c in calls for r in c), len(scored)
            ),
            "crop": _share(
                sum(r.tool == "image_search" and r.query is not None for c in calls for r in c), len(scored)
            ),
        },
        "grounding": {"n": len(grounded), "mean_iou": _share(sum(grounded), len(grounded))},
        "statuses": dict(collections.Counter(sample.trajectory.status for sample in samples)),
        "infrastructure_failures": len(samples) - len(scored),
    }


def wilson_interval(right: int, count: int, z: float = 1.959964) -> list[float]:
    """Wilson's 95 % interval of a share (Wilson, 1927); [0, 1] where nothing was counted."""
    if count == 0:
        return [0.0, 1.0]
    share = right / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return [max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)]


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    overlap = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return overlap / (areas - overlap)


def _grounding_iou(sample: Sample) -> float | None:
    if sample.row.target is None:
        return None
    crops = [call for call in sample.trajectory.tool_calls("image_search") if call.query is not None]
    if not crops:
        return None
    gold = sample.row.placements[sample.row.target].box
    return box_iou(crops[0].box, gold) if crops[0].box is not None else 0.0


def _accuracy(samples: Sequence[Sample]) -> dict[str, Any]:
    right = sum(bool(sample.correct) for sample in samples)
    return {"n": len(samples), "accuracy": _share(right, len(samples)), "ci95": wilson_interval(right, len(samples))}


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
