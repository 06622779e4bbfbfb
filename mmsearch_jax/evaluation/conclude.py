"""Computes an evaluation's summary from its log: judges, scores again and counts, without asking the policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tqdm

from mmsearch_jax.core.errors import ToolFailed
from mmsearch_jax.evaluation.judging import Judging, judge_samples, verdict_of, verdicts
from mmsearch_jax.evaluation.metrics.by_name import metric_named
from mmsearch_jax.evaluation.sample import from_log
from mmsearch_jax.evaluation.samples import (
    SUMMARY,
    WHOLE,
    Shard,
    read_judgements,
    read_samples,
    read_stamp,
    read_unreadable,
    write_json,
)
from mmsearch_jax.evaluation.scoring import summarise


def conclude(
    folder: Path,
    judging: Judging | None = None,
    shard: Shard = WHOLE,
    direct: Mapping[str, bool] | None = None,
    *,
    stopped: str | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Judges the samples in the log, scores them again and writes the summary, without asking the policy.

    Args:
      shard: the verdicts go to this shard's file; all samples of the folder are judged and counted.
      stopped: why some questions were not asked; None if all were.

    Raises:
      DataError: the log is missing or empty.
      ToolFailed: every episode failed.
    """
    stamp = read_stamp(folder)
    wanted = set(stamp.ids)
    records = [
        record
        for record in read_samples(folder)
        if record["config"] == stamp.config and record["id"] in wanted and record["repeat"] < stamp.samples
    ]
    if judging is not None:
        own = [record for record in records if shard.has(record["id"])]
        with tqdm.tqdm(total=len(own), desc="judge", unit="answer", disable=not show_progress) as bar:
            judge_samples(own, folder, shard, judging, bar.update)
    known = verdicts(read_judgements(folder), judging) if judging is not None else {}
    metric = metric_named(stamp.metric)
    samples = [
        from_log(record, folder, metric, verdict_of(record, known) if judging is not None else None)
        for record in records
    ]
    unreadable = {name: why for name, why in read_unreadable(folder).items() if name in wanted}
    sound = sum(sample.correct is not None for sample in samples)
    expected = (len(stamp.ids) - len(unreadable)) * stamp.samples
    summary = summarise(
        samples,
        stamp.metric,
        direct,
        {"model": judging.endpoint.model, "prompt": judging.prompt} if judging else None,
        **stamp.identity,
        config=stamp.config,
        complete=sound >= expected,
        questions={"of": expected, "done": sound},
        stopped=stopped if sound < expected else None,
        unreadable_rows=unreadable,
    )
    write_json(folder / SUMMARY, summary)
    if samples and not sound:
        raise ToolFailed(
            f"evaluation '{stamp.identity['name']}': every episode failed; the first: {samples[0].trajectory.error}"
        )
    return summary


def right_by_id(folder: Path) -> dict[str, bool]:
    """Row id -> whether the first scored sample is right by the benchmark's metric.

    Raises:
      DataError: the folder holds no run.
    """
    read_stamp(folder)
    right: dict[str, bool] = {}
    for record in read_samples(folder):
        if record["correct"] is not None:
            right.setdefault(record["id"], record["correct"])
    return right
