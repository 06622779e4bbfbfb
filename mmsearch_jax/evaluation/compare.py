"""Two runs over the same questions: the difference of their scores, with an interval and an exact test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.evaluation.judging import CORRECT
from mmsearch_jax.evaluation.metrics.by_name import gave_up, metric_named
from mmsearch_jax.evaluation.sample import Sample, from_log
from mmsearch_jax.evaluation.samples import RUN_FILE, read_judgements, read_samples, read_stamp
from mmsearch_jax.evaluation.statistics import mean, paired_difference


def compare_runs(first: Path, second: Path) -> list[dict[str, Any]]:
    """`statistics.paired_difference` (second minus first) for each benchmark that both runs have.

    A question is compared if both runs have a scored sample of it, by the mean score of its samples. Runs with verdicts
    of the same judge and prompt are also compared by these verdicts.

    Args:
      first, second: folders of one benchmark (with run.json), or of several.

    Raises:
      DataError: a folder holds no run, or the runs have no benchmark or no question in common.
    """
    ours, theirs = _folders(first), _folders(second)
    common = [name for name in ours if name in theirs]
    if not common:
        raise DataError(f"{first} ({', '.join(ours)}) and {second} ({', '.join(theirs)}) have no benchmark in common")
    return [_compare(name, ours[name], theirs[name]) for name in common]


def _folders(run: Path) -> dict[str, Path]:
    """The folders of a run's benchmarks, by benchmark."""
    stamps = [run / RUN_FILE] if (run / RUN_FILE).is_file() else sorted(run.glob(f"*/{RUN_FILE}"))
    if not stamps:
        raise DataError(f"no evaluation in {run}: give a folder with {RUN_FILE}, such as runs/eval/eval/policy")
    return {read_stamp(stamp.parent).identity["benchmark"]: stamp.parent for stamp in stamps}


def _compare(benchmark: str, first: Path, second: Path) -> dict[str, Any]:
    runs = [_samples(folder) for folder in (first, second)]
    ids = [name for name in runs[0] if name in runs[1]]
    if not ids:
        raise DataError(f"{benchmark}: {first} and {second} have no question in common")
    clusters = [runs[0][name][0].image for name in ids]
    scores = [[mean([sample.value for sample in run[name]]) for name in ids] for run in runs]
    return {
        "benchmark": benchmark,
        "runs": [str(first), str(second)],
        "accuracy": [mean(each) for each in scores],
        **paired_difference(scores[0], scores[1], clusters),
        "judge": _by_judge(first, second, runs),
    }


def _samples(folder: Path) -> dict[str, list[Sample]]:
    stamp, found = read_stamp(folder), dict[str, list[Sample]]()
    metric, wanted = metric_named(stamp.metric), set(stamp.ids)
    for record in read_samples(folder):
        if record["correct"] is not None and record["config"] == stamp.config and record["id"] in wanted:
            found.setdefault(record["id"], []).append(from_log(record, folder, metric))
    return found


def _by_judge(first: Path, second: Path, runs: list[dict[str, list[Sample]]]) -> dict[str, Any] | None:
    verdicts = [_verdicts(folder) for folder in (first, second)]
    common = [judge for judge in verdicts[0] if judge in verdicts[1]]
    if not common:
        return None
    judge = common[-1]
    scores = [_judged(run, each[judge]) for run, each in zip(runs, verdicts, strict=True)]
    ids = [name for name in scores[0] if name in scores[1]]
    if not ids:
        return None
    clusters = [runs[0][name][0].image for name in ids]
    values = [[score[name] for name in ids] for score in scores]
    return {
        "model": judge[0],
        "prompt": judge[1],
        "accuracy": [mean(each) for each in values],
        **paired_difference(values[0], values[1], clusters),
    }


def _verdicts(folder: Path) -> dict[tuple[str, str], dict[tuple[str, int, str], str]]:
    found: dict[tuple[str, str], dict[tuple[str, int, str], str]] = {}
    for each in read_judgements(folder):
        key = each["id"], each["repeat"], each["answer"]
        found.setdefault((each["judge"], each["prompt"]), {})[key] = each["verdict"]
    return found


def _judged(run: Mapping[str, list[Sample]], verdicts: Mapping[tuple[str, int, str], str]) -> dict[str, float]:
    """Mean verdict by question; questions with a sample that has no verdict are left out."""
    scores = {}
    for name, samples in run.items():
        given = [
            "" if s.answer is None or gave_up(s.answer) else verdicts.get((name, s.repeat, s.answer)) for s in samples
        ]
        if None not in given:
            scores[name] = mean([verdict == CORRECT for verdict in given])
    return scores
