"""Metrics of tool use: shares of episodes, needless and missed searches, self-correction. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmsearch_jax.core.protocol import TextSearch
from mmsearch_jax.core.trajectory import SearchKind, Turn
from mmsearch_jax.evaluation.sample import Sample
from mmsearch_jax.evaluation.statistics import mean, share
from mmsearch_jax.rewards.match import normalise


def tool_use(samples: Sequence[Sample], direct: Mapping[str, bool] | None = None) -> dict[str, Any]:
    """The tool metrics of a summary, over scored episodes.

    Args:
      direct: row id -> whether the policy is right without tools (a run in mode "direct"); this decides which questions
        need a search. None: the rows' flags decide.
    """
    calls = [sample.trajectory.tool_calls() for sample in samples]
    texts, wholes, crops = ([sum(call.kind == kind for call in each) for each in calls] for kind in SearchKind)
    images = [whole + crop for whole, crop in zip(wholes, crops, strict=True)]
    count, total = len(samples), sum(map(len, calls))
    right = math.fsum(sample.value for sample in samples)
    chances = [kind for sample in samples if (kind := corrected(sample)) is not None]
    return {
        "n": count,
        "searched": share(sum(map(bool, calls)), count),
        "text": share(sum(map(bool, texts)), count),
        "whole_image": share(sum(map(bool, wholes)), count),
        "crop": share(sum(map(bool, crops)), count),
        "mixed": share(sum(bool(text and image) for text, image in zip(texts, images, strict=True)), count),
        "multi_text": share(sum(text > 1 for text in texts), count),
        "calls_per_question": share(total, count),
        "calls_per_correct_answer": total / right if right else None,
        "needless": _needless(samples, direct),
        "missed": _missed(samples, direct),
        "self_correction": {
            "opportunities": len(chances),
            "corrected": sum(chances),
            "rate": share(sum(chances), len(chances)),
        },
    }


def corrected(sample: Sample) -> bool | None:
    """Whether the policy corrected itself; None if its first text search showed a gold answer, or if it did not search.

    It did if the final answer is right and a later text search with another query showed a gold answer. A search shows
    an answer if the normalised observation contains the normalised answer.
    """
    searches = [turn for turn in sample.trajectory.turns if isinstance(turn.action, TextSearch) and _sent(turn)]
    if not searches or _shows(searches[0], sample):
        return None
    first = searches[0].action
    later = [turn for turn in searches[1:] if turn.action != first]
    return bool(sample.correct) and any(_shows(turn, sample) for turn in later)


def _sent(turn: Turn) -> bool:
    return turn.tool is not None and not turn.tool.refused and turn.observation is not None


def _shows(turn: Turn, sample: Sample) -> bool:
    seen = f" {normalise(turn.observation or '')} "
    return any(f" {normalise(answer)} " in seen for answer in sample.row.answers)


def _needless(samples: Sequence[Sample], direct: Mapping[str, bool] | None) -> dict[str, Any]:
    """Share of questions with a search, among those that need none."""
    free = [sample for sample in samples if _needs_search(sample, direct) is False]
    return {"by": _by(direct), "n": len(free), "share": mean([bool(s.trajectory.tool_calls()) for s in free])}


def _missed(samples: Sequence[Sample], direct: Mapping[str, bool] | None) -> dict[str, Any]:
    """Share of questions that are wrong and without a search, among those that need one."""
    needed = [sample for sample in samples if _needs_search(sample, direct)]
    missed = [not sample.correct and not sample.trajectory.tool_calls() for sample in needed]
    return {"by": _by(direct), "n": len(needed), "share": mean(missed)}


def _needs_search(sample: Sample, direct: Mapping[str, bool] | None) -> bool | None:
    if direct is None:
        return sample.row.search_required
    right = direct.get(sample.row.id)
    return None if right is None else not right


def _by(direct: Mapping[str, bool] | None) -> str:
    return "flag" if direct is None else "direct run"
