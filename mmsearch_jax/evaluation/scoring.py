"""Computes a summary's numbers from samples: accuracy with intervals, by kind, form, category and judge, and tool use.

Pure functions. Infrastructure failures (for example a server that is down) are counted separately and never scored.
"""

from __future__ import annotations

import collections
import statistics as numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmsearch_jax.core.trajectory import SearchKind, ToolRecord
from mmsearch_jax.data.rows import KINDS
from mmsearch_jax.evaluation.judging import CORRECT
from mmsearch_jax.evaluation.metrics import graded
from mmsearch_jax.evaluation.metrics.by_name import METRICS, Metric, MetricScore
from mmsearch_jax.evaluation.sample import Sample
from mmsearch_jax.evaluation.statistics import agreement, bootstrap_interval, interval, majority, mean, pass_at_k, share
from mmsearch_jax.evaluation.tool_use import tool_use
from mmsearch_jax.rewards.match import normalise

MAX_FAILED_SHARE = 0.02
"""Share of episodes lost to failing tools or endpoints above which a summary carries a warning."""


def summarise(
    samples: Sequence[Sample],
    metric_name: str = "match",
    direct: Mapping[str, bool] | None = None,
    judge: Mapping[str, Any] | None = None,
    **identity: Any,
) -> dict[str, Any]:
    """The summary of an evaluation; `identity` (benchmark, mode, checkpoint, ...) comes first.

    Args:
      direct: see `tool_use`.
      judge: model and prompt of the judge whose verdicts the samples have; None: no judge.
    """
    scored = [sample for sample in samples if sample.correct is not None]
    crowded = [sample for sample in scored if sample.row.kind == "crop" and sample.row.num_entities >= 3]
    free = [sample for sample in scored if sample.row.search_required is False]
    grounded = [iou for sample in scored if (iou := _grounding_iou(sample)) is not None]
    values, images = [sample.value for sample in scored], [sample.image for sample in scored]
    failed = len(samples) - len(scored)
    categories = sorted({sample.row.category for sample in scored} - {""})
    forms = sorted({_form(sample) for sample in scored} - {""})
    return {
        **identity,
        "n": len(scored),
        "accuracy": mean(values),
        "ci95": interval(values, images),
        "bootstrap95": bootstrap_interval(values, images),
        "metric": _metric(scored, metric_name),
        "judge": _judged(scored, judge) if judge else None,
        "repeats": _repeats(scored),
        "by_kind": {kind: _group(scored, lambda s, kind=kind: s.row.kind == kind) for kind in KINDS},
        "by_category": {name: _group(scored, lambda s, name=name: s.row.category == name) for name in categories},
        "by_form": {name: _group(scored, lambda s, name=name: _form(s) == name) for name in forms},
        "search_required": _group(scored, lambda s: s.row.search_required is True),
        "search_free": _group(scored, lambda s: s.row.search_required is False),
        "crop_3_or_more_entities": _accuracy(crowded),
        "searches_per_question": share(sum(len(s.trajectory.tool_calls()) for s in scored), len(scored)),
        "needless_search_rate": share(sum(bool(s.trajectory.tool_calls()) for s in free), len(free)),
        "searches_by_tool": {kind: _calls(scored, lambda call, kind=kind: call.kind == kind) for kind in SearchKind},
        "grounding": {"n": len(grounded), "mean_iou": mean(grounded)},
        "tool_use": tool_use(scored, direct),
        "seconds": _times([sample.trajectory.seconds for sample in scored]),
        "cost_usd": {
            "total": sum(sample.cost_usd for sample in samples),
            "per_question": share(sum(sample.cost_usd for sample in scored), len(scored)),
        },
        "lengths": {
            name: mean([sample.lengths.get(name, 0) for sample in scored])
            for name in ("prompt", "sampled", "observation", "turns")
        },
        "statuses": dict(sorted(collections.Counter(sample.trajectory.status for sample in samples).items())),
        "infrastructure_failures": failed,
        "warning": failure_warning(failed, len(samples)),
    }


def failure_warning(failed: int, of: int) -> str | None:
    """What must be read beside an accuracy that leaves out too many samples; None if they are at most `MAX_FAILED_SHARE`."""
    if failed <= MAX_FAILED_SHARE * of:
        return None
    return (
        f"{failed} of {of} episodes failed ({failed / of:.0%}) and are not in the accuracy: see statuses in summary.json, "
        "correct the cause and resume"
    )


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    overlap = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return overlap / (areas - overlap)


def _metric(scored: Sequence[Sample], name: str) -> dict[str, Any]:
    metric: Metric = METRICS[name]
    score, parts = mean([sample.value for sample in scored]), {}
    if metric.headline is not None and scored:
        score, parts = metric.headline([MetricScore(sample.row, sample.answer, sample.value) for sample in scored])
    return {"name": name, "source": metric.source, "score": score, "parts": parts}


def _judged(scored: Sequence[Sample], judge: Mapping[str, Any]) -> dict[str, Any]:
    judged = [sample for sample in scored if sample.verdict is not None]
    right = [sample.verdict == CORRECT for sample in judged]
    found = {
        **judge,
        "n": len(judged),
        "accuracy": mean(right),
        "ci95": interval(right, [s.image for s in judged]),
        "failed": len(scored) - len(judged),
        "agreement": agreement([bool(s.correct) for s in judged], right),
    }
    if judge["prompt"].startswith("grades"):
        names = {CORRECT: graded.CORRECT, graded.NOT_ATTEMPTED: graded.NOT_ATTEMPTED}
        found["grades"] = graded.f_score([names.get(str(s.verdict), graded.INCORRECT) for s in judged])
    return found


def _repeats(scored: Sequence[Sample]) -> dict[str, Any]:
    """pass@k and the accuracy of the majority vote; pass@k over the questions with at least k scored samples."""
    questions: dict[str, list[Sample]] = collections.defaultdict(list)
    for sample in scored:
        questions[sample.row.id].append(sample)
    most = max(map(len, questions.values()), default=0)
    counted = [(len(group), sum(bool(sample.correct) for sample in group)) for group in questions.values()]
    chosen = [group[majority([normalise(s.answer or "") for s in group])] for group in questions.values()]
    return {
        "samples": most,
        "pass_at_k": {str(k): mean([pass_at_k(n, c, k) for n, c in counted if n >= k]) for k in range(1, most + 1)},
        "majority": mean([sample.value for sample in chosen]),
    }


def _grounding_iou(sample: Sample) -> float | None:
    if sample.row.target is None:
        return None
    crops = [call for call in sample.trajectory.tool_calls() if call.kind == SearchKind.CROP]
    if not crops:
        return None
    gold = sample.row.placements[sample.row.target].box
    return box_iou(crops[0].box, gold) if crops[0].box is not None else 0.0


def _form(sample: Sample) -> str:
    """What a question of the mini-world asks for (count, count_flags, where, colour, land, monument); "" if unknown."""
    return sample.row.meta.get("form", "")


def _calls(scored: Sequence[Sample], kind: Callable[[ToolRecord], bool]) -> float:
    """Number of calls of a kind per question."""
    return share(sum(kind(call) for sample in scored for call in sample.trajectory.tool_calls()), len(scored))


def _group(scored: Sequence[Sample], belongs: Callable[[Sample], bool]) -> dict[str, Any]:
    return _accuracy([sample for sample in scored if belongs(sample)])


def _accuracy(samples: Sequence[Sample]) -> dict[str, Any]:
    values = [sample.value for sample in samples]
    return {"n": len(samples), "accuracy": mean(values), "ci95": interval(values, [sample.image for sample in samples])}


def _times(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {"mean": 0.0, "median": 0.0, "p95": 0.0}
    ordered = sorted(seconds)
    return {
        "mean": mean(ordered),
        "median": numbers.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
    }
