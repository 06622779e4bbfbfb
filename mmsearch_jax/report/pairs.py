"""Compares two evaluations of a benchmark question by question: what became right or wrong, and its significance."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from mmsearch_jax.evaluation.statistics import mean, paired_difference


@dataclasses.dataclass(frozen=True)
class ScoredSamples:
    """A scored sample: its question, the question's image, and its score from 0 to 1."""

    question: str
    image: str
    score: float


@dataclasses.dataclass(frozen=True)
class Pair:
    """`second` minus `first` on the `n` questions that both have scored (see `statistics.paired_difference`)."""

    first: str
    second: str
    n: int
    difference: float
    ci95: tuple[float, float]
    became_right: int
    became_wrong: int
    p: float


def pairs(samples: Sequence[tuple[str, Sequence[ScoredSamples]]], main: int) -> list[Pair]:
    """Compares each evaluation with the main one. `first` of a pair is the one that comes first in `samples`.

    Args:
      samples: label and scored samples of each evaluation; several samples of a question count with their mean.
      main: index of the evaluation that the others are compared with.
    """
    scores = [_by_question(scored) for _, scored in samples]
    images = {each.question: each.image for _, scored in samples for each in scored}
    made = []
    for place in range(len(samples)):
        first, second = sorted((place, main))
        common = [question for question in scores[first] if question in scores[second]]
        if place == main or not common:
            continue
        found = paired_difference(
            [scores[first][q] for q in common], [scores[second][q] for q in common], [images[q] for q in common]
        )
        made.append(
            Pair(
                samples[first][0],
                samples[second][0],
                len(common),
                found["difference"],  # type: ignore[arg-type]
                found["ci95"],  # type: ignore[arg-type]
                became_right=found["only_second"],  # type: ignore[arg-type]
                became_wrong=found["only_first"],  # type: ignore[arg-type]
                p=found["mcnemar_p"],  # type: ignore[arg-type]
            )
        )
    return made


def _by_question(scored: Sequence[ScoredSamples]) -> Mapping[str, float]:
    grouped: dict[str, list[float]] = collections.defaultdict(list)
    for each in scored:
        grouped[each.question].append(each.score)
    return {question: mean(values) for question, values in grouped.items()}
