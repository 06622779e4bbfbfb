"""A sample: one question, its episode, and the score."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.data.rows import Row, from_record
from mmsearch_jax.data.storage import localised
from mmsearch_jax.evaluation.metrics.by_name import Metric

RIGHT_FROM = 0.5
"""The lowest score that counts as right."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """An episode with its row.

    Attributes:
      correct: None after an infrastructure failure.
      score: by the benchmark's metric, 0 to 1; None after an infrastructure failure.
      repeat: index of the sample among the question's samples.
      verdict: the judge's verdict; None if there is none.
      cost_usd: cost of tools and policy.
      lengths: number of tokens by provenance, and of turns.
    """

    row: Row
    trajectory: Trajectory
    correct: bool | None
    score: float | None = None
    repeat: int = 0
    verdict: str | None = None
    cost_usd: float = 0.0
    lengths: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def value(self) -> float:
        """The score; only for samples that have one."""
        return float(bool(self.correct)) if self.score is None else self.score

    @property
    def answer(self) -> str | None:
        """The answer; None if the episode ended without one."""
        return self.trajectory.answer if self.trajectory.status == Status.ANSWERED else None

    @property
    def image(self) -> str | bytes:
        """A key that is equal for samples on the same image."""
        return self.row.image or self.row.id


def score(row: Row, trajectory: Trajectory, metric: Metric, **more: Any) -> Sample:
    """The sample of an episode. A missing answer scores 0; an infrastructure failure has no score."""
    if trajectory.infrastructure_failure:
        return Sample(row, trajectory, None, **more)
    answered = trajectory.status == Status.ANSWERED and trajectory.answer is not None
    value = metric.score(row, trajectory.answer or "") if answered else 0.0
    return Sample(row, trajectory, value >= RIGHT_FROM, value, **more)


def from_log(record: dict[str, Any], folder: Path, metric: Metric, verdict: str | None = None) -> Sample:
    """The sample that a line of samples.jsonl describes, scored again."""
    row, trajectory = localised(from_record(record["row"]), folder), Trajectory.from_json(record["trajectory"])
    return score(
        row,
        trajectory,
        metric,
        repeat=record["repeat"],
        verdict=verdict,
        cost_usd=record["cost_usd"],
        lengths=record["lengths"],
    )
