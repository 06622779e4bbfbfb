"""The metrics by name. A metric scores an answer to a row, and may compute a benchmark's figure from all scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.core.protocol import GIVE_UP
from mmsearch_jax.data.rows import Row
from mmsearch_jax.evaluation.metrics import encyclopedic_vqa, graded, infoseek, token_overlap, vqa
from mmsearch_jax.rewards.match import matches


class MetricScore(NamedTuple):
    """A row, its answer (None: no answer), and the answer's score."""

    row: Row
    answer: str | None
    score: float


class Metric(NamedTuple):
    """A benchmark's metric.

    Attributes:
      score: scores an answer from 0 to 1; raises `DataError` if the row lacks a field that it needs.
      source: where the metric comes from.
      headline: computes the benchmark's figure and its parts from all scores; None: the figure is the mean.
    """

    score: Callable[[Row, str], float]
    source: str
    headline: Callable[[Sequence[MetricScore]], tuple[float, dict[str, float]]] | None = None


def metric_named(name: str) -> Metric:
    """The metric with that name in `METRICS`.

    Raises:
      ConfigError: no metric has that name.
    """
    if name not in METRICS:
        raise ConfigError(f"unknown metric '{name}', expected one of {', '.join(METRICS)}")
    return METRICS[name]


def gave_up(answer: str | None) -> bool:
    """Whether the answer is missing, or is the prompts' phrase for giving up."""
    return answer is None or answer.strip(" .").casefold() == GIVE_UP.casefold()


def _match(row: Row, answer: str) -> float:
    return float(matches(answer, row.answers))


def _vqa(row: Row, answer: str) -> float:
    return vqa.vqa_accuracy(answer, _listed(row, "direct_answers"))


def _direct_answer(row: Row, answer: str) -> float:
    return vqa.direct_answer_accuracy(answer, _listed(row, "direct_answers"))


def _multiple_choice(row: Row, answer: str) -> float:
    return vqa.multiple_choice_accuracy(answer, _listed(row, "choices"), int(_meta(row, "correct_choice")))


def _infoseek(row: Row, answer: str) -> float:
    if "answer_range" in row.meta:
        return float(infoseek.in_range(answer, json.loads(row.meta["answer_range"])))
    return float(infoseek.exact_match(answer, row.answers))


def _infoseek_headline(scored: Sequence[MetricScore]) -> tuple[float, dict[str, float]]:
    parts = {}
    for split in (infoseek.UNSEEN_QUESTION, infoseek.UNSEEN_ENTITY):
        if of_split := [each.score for each in scored if each.row.provenance.get("split", "").endswith(split)]:
            parts[split] = _mean(of_split)
    overall = infoseek.harmonic_mean(list(parts.values())) if parts else _mean([each.score for each in scored])
    for kind in ("Time", "Numerical", "String"):
        if of_kind := [
            each.score for each in scored if each.row.meta.get("question_type", "").casefold() == kind.casefold()
        ]:
            parts[kind.lower()] = _mean(of_kind)
    return overall, parts


def _encyclopedic(row: Row, answer: str) -> float:
    if "answer_list" in row.meta:
        return float(encyclopedic_vqa.exact_match(answer, row.meta["answer_list"]))
    return float(any(encyclopedic_vqa.exact_match(answer, gold) for gold in row.answers))


def _simplevqa_headline(scored: Sequence[MetricScore]) -> tuple[float, dict[str, float]]:
    parts = graded.f_score([grade_of(each.answer, each.score >= 0.5) for each in scored])
    return parts["f_score"], parts


def grade_of(answer: str | None, correct: bool) -> str:
    """SimpleVQA's grade of an answer that is known to be correct or not."""
    if gave_up(answer):
        return graded.NOT_ATTEMPTED
    return graded.CORRECT if correct else graded.INCORRECT


def _f1_recall(row: Row, answer: str) -> float:
    return token_overlap.f1_recall(answer, row.answers, row.meta.get("language", "en"))


def _meta(row: Row, key: str) -> str:
    if key not in row.meta:
        raise DataError(f"row {row.id}: its metric needs meta['{key}']; convert the set anew, or choose another metric")
    return row.meta[key]


def _listed(row: Row, key: str) -> list[str]:
    return json.loads(_meta(row, key))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


METRICS: dict[str, Metric] = {
    "match": Metric(_match, "rewards/match.py: equality by rules"),
    "infoseek": Metric(
        _infoseek, "infoseek_eval: EM over aliases, ranges; harmonic mean of the splits", _infoseek_headline
    ),
    "exact_match": Metric(_encyclopedic, "google-research/encyclopedic_vqa: exact match alone, without BEM"),
    "simplevqa": Metric(_match, "SimpleVQA: F-score of three grades, here by rules", _simplevqa_headline),
    "f1_recall": Metric(_f1_recall, "Dyn-VQA: token F1-Recall"),
    "vqa_accuracy": Metric(_vqa, "VQA: mean over annotators left out of min(1, matches / 3)"),
    "direct_answer": Metric(_direct_answer, "A-OKVQA: min(1, matches / 3)"),
    "multiple_choice": Metric(_multiple_choice, "A-OKVQA: the right choice"),
    "f1": Metric(lambda row, answer: token_overlap.best_f1(answer, row.answers), "MMSearch: token F1"),
}
