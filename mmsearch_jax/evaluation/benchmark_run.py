"""Asks a policy every question of a benchmark with the episode loop of training, and writes the results.

Each ended episode is appended to `samples.jsonl`; `summary.json` is written last. Questions in the log are not asked
again, so the same command resumes after a kill. Rows whose image cannot be read are skipped and listed in the summary.
Infrastructure failures are counted separately, and the next run retries them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tqdm

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.core.run_lock import NAME as LOCK
from mmsearch_jax.core.run_lock import RunLock
from mmsearch_jax.core.staging import portable
from mmsearch_jax.data.formats import jsonl
from mmsearch_jax.data.rows import Row, embed_images, to_record
from mmsearch_jax.data.usable import EPISODE, Use, shown_image, why_unusable
from mmsearch_jax.evaluation.budget import EvaluationBudget
from mmsearch_jax.evaluation.conclude import conclude
from mmsearch_jax.evaluation.judging import Judging
from mmsearch_jax.evaluation.metrics.by_name import metric_named
from mmsearch_jax.evaluation.oracle import Evidence, OracleTools
from mmsearch_jax.evaluation.policies import EvaluatedPolicy, Outcome
from mmsearch_jax.evaluation.sample import Sample, score
from mmsearch_jax.evaluation.samples import (
    IMAGES,
    SAMPLES,
    SETTINGS_FILE,
    UNREADABLE,
    WHOLE,
    Log,
    Shard,
    Stamp,
    answers_depend_on,
    open_folder,
    read_samples,
    write_json,
)
from mmsearch_jax.images import image_urls
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.rollout import EpisodeConfig

EvidenceOf = Callable[[Row], Evidence | None]
_READERS = 16
"""Number of images that are checked or fetched in parallel."""
_SHOWN = 3
"""Number of unreadable rows in an error message."""
_MAX_FAILURES = 100
"""The run ends after this number of consecutive failed episodes, because a server is probably down."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The settings of an evaluation.

    Attributes:
      name: folder under `workdir`/eval.
      benchmark: the set's name.
      rules: the episodes' rules, including the mode.
      metric: one of `metrics.by_name.METRICS`.
      samples: number of samples per question.
      temperature: 0 decodes greedily.
      seed: seeds the samples, together with row id and repeat.
      checkpoint: the policy's name in the table.
      evidence: returns a row's evidence, which replaces the tools (the oracle ablation); None: use the tools.
      judging: the LLM judge; None: no judge.
      direct: the results of a run in mode "direct": right or wrong by row id. They decide which searches were needed.
      skipped: number of rows that are not asked, by reason; for the summary.
      settings: all settings as plain values, which are kept beside the samples.
    """

    name: str
    benchmark: str
    rules: EpisodeConfig
    metric: str = "match"
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    checkpoint: str = ""
    evidence: EvidenceOf | None = None
    judging: Judging | None = None
    direct: Mapping[str, bool] | None = None
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def stamp(self, policy: EvaluatedPolicy, rows: Sequence[Row]) -> Stamp:
        """The settings that determine the samples."""
        settings = answers_depend_on(
            policy.identity, self.benchmark, self.temperature, self.seed, self.evidence is not None, self.rules
        )
        identity = {
            "name": self.name,
            "benchmark": self.benchmark,
            "mode": self.rules.mode,
            "checkpoint": self.checkpoint,
            "policy": dict(policy.identity),
            "seed": self.seed,
            "temperature": self.temperature,
            "skipped_rows": dict(self.skipped),
        }
        return Stamp(settings, self.metric, identity, [row.id for row in rows], self.samples)


def evaluate(
    policy: EvaluatedPolicy,
    rows: Sequence[Row],
    evaluation: Evaluation,
    tools: ToolClient | None,
    workdir: str | Path,
    *,
    shard: Shard = WHOLE,
    budget: EvaluationBudget | None = None,
    if_changed: str = "refuse",
    max_unusable: float = 0.5,
    ready_timeout_s: float = 10.0,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Asks the questions that are not in the log yet, and returns the summary of the whole log.

    Args:
      tools: closed at the end; may be None if no episode calls a tool.
      shard: the part of the questions that this process asks.
      budget: ends the run early; several evaluations may share it. None: no limit.
      if_changed: see `samples.open_folder`.
      max_unusable: the largest share of rows that may be left out because they cannot be asked.
      ready_timeout_s: seconds to wait for the search server to be ready before the first question.

    Raises:
      ConfigError: the folder holds samples of other settings.
      DirectoryInUse: another process asks the same part of the questions.
      DataError: there are no rows, too many cannot be asked, or no row has evidence for the oracle.
      ToolUnavailable: the search server does not answer.
      ToolFailed: every episode failed (the summary and the samples are still written).
    """
    _check(rows, evaluation)
    place = Path(workdir) / "eval" / evaluation.name
    # Each shard has its own file, to which one process appends.
    with RunLock.of(place, f"{shard.file(SAMPLES)}.{LOCK}"):
        return _evaluate(
            policy,
            rows,
            evaluation,
            tools,
            place,
            shard,
            budget,
            if_changed,
            max_unusable,
            ready_timeout_s,
            show_progress,
        )


def _evaluate(
    policy: EvaluatedPolicy,
    rows: Sequence[Row],
    evaluation: Evaluation,
    tools: ToolClient | None,
    place: Path,
    shard: Shard,
    budget: EvaluationBudget | None,
    if_changed: str,
    max_unusable: float,
    ready_timeout_s: float,
    show_progress: bool,
) -> dict[str, Any]:
    budget = budget or EvaluationBudget()
    stamp = evaluation.stamp(policy, rows)
    folder = open_folder(place, stamp, if_changed)
    write_json(folder / SETTINGS_FILE, evaluation.settings)
    done = [sample for sample in read_samples(folder) if sample["config"] == stamp.config]
    budget.add(sum(sample["calls"] for sample in done), sum(sample["cost_usd"] for sample in done))
    sound = {(sample["id"], sample["repeat"]): sample["score"] for sample in done if sample["correct"] is not None}
    mine = [(row, repeat) for repeat in range(evaluation.samples) for row in rows if shard.has(row.id)]
    pending = [(row, repeat) for row, repeat in mine if (row.id, repeat) not in sound]
    readable, unreadable = _readable(
        [row for row, _ in pending], dataclasses.replace(EPISODE, processor=policy.processor)
    )
    write_json(folder / f"{shard.file(UNREADABLE)}.json", unreadable)
    num_rows = len({row.id for row, _ in mine})
    if len(unreadable) > max_unusable * num_rows or (unreadable and not readable and not sound):
        shown = "; ".join(f"{name}: {why}" for name, why in list(unreadable.items())[:_SHOWN])
        raise DataError(
            f"evaluation '{evaluation.name}': {len(unreadable)} of {num_rows} rows cannot be asked ({shown}; all of them: "
            f"{folder / shard.file(UNREADABLE)}.json): repair them, or raise eval.max_unusable ({max_unusable:g})"
        )
    pending = [(readable[row.id], repeat) for row, repeat in pending if row.id in readable]
    stopped = budget.exhausted()
    if pending and not stopped:
        if tools is not None and evaluation.rules.mode != "direct" and evaluation.evidence is None:
            asyncio.run(_wait_ready(tools, ready_timeout_s))
        scores = [sound[row.id, repeat] for row, repeat in mine if (row.id, repeat) in sound]
        progress = _Progress(evaluation.name, len(mine), scores, show_progress)
        stopped = _ask(policy, pending, evaluation, tools, folder, stamp, shard, budget, progress)
    return conclude(folder, evaluation.judging, shard, evaluation.direct, stopped=stopped, show_progress=show_progress)


class _Progress:
    """The progress bar: questions done, mean score so far, time left."""

    def __init__(self, name: str, total: int, scores: Sequence[float], show: bool):
        self._sum, self._count = sum(scores), len(scores)
        self.bar = tqdm.tqdm(total=total, initial=len(scores), desc=f"eval {name}", unit="question", disable=not show)

    def add(self, sample: Sample) -> None:
        if sample.correct is not None:
            self._sum, self._count = self._sum + sample.value, self._count + 1
        self.bar.set_postfix(accuracy=f"{self._sum / max(self._count, 1):.3f}", refresh=False)
        self.bar.update()


def _ask(
    policy: EvaluatedPolicy,
    pending: Sequence[tuple[Row, int]],
    evaluation: Evaluation,
    tools: ToolClient | None,
    folder: Path,
    stamp: Stamp,
    shard: Shard,
    budget: EvaluationBudget,
    progress: _Progress,
) -> str | None:
    """Asks the questions and logs the samples; returns why questions are left, or None if all were asked."""
    in_a_row, why = 0, ""
    metric, sampling = metric_named(evaluation.metric), SamplingParams(temperature=evaluation.temperature)
    rows = {row.id: row for row, _ in pending}
    requests = _requests(pending, evaluation, sampling)

    with progress.bar, Log(folder / f"{shard.file(SAMPLES)}.jsonl") as log:

        def stopped() -> str | None:
            return f"{in_a_row} consecutive episodes failed: {why}" if in_a_row >= _MAX_FAILURES else budget.exhausted()

        def ended(outcome: Outcome) -> None:
            nonlocal in_a_row, why
            trajectory = outcome.trajectory
            in_a_row = in_a_row + 1 if trajectory.infrastructure_failure else 0
            why = trajectory.error or trajectory.status
            repeat = int(trajectory.group_id.partition("/")[0])
            calls = trajectory.tool_calls()
            cost = outcome.cost_usd + sum(call.cost_usd for call in calls)
            sample = score(
                rows[trajectory.row_id], trajectory, metric, repeat=repeat, cost_usd=cost, lengths=outcome.lengths
            )
            log.write(_record(sample, evaluation.benchmark, stamp.config, folder))
            budget.add(len(calls), cost)
            progress.add(sample)

        policy.play(requests, evaluation.rules, tools, ended, lambda: stopped() is not None)
        return stopped()


def _requests(
    pending: Sequence[tuple[Row, int]], evaluation: Evaluation, sampling: SamplingParams
) -> list[EpisodeRequest]:
    return [
        EpisodeRequest(
            row.id,
            f"{repeat}/{row.id}",
            row.question,
            shown_image(row),
            _seed(evaluation.seed, row.id, repeat),
            sampling,
            _oracle(evaluation, row),
        )
        for row, repeat in pending
    ]


def _seed(seed: int, name: str, repeat: int) -> int:
    """The seed of one sample; independent of the other questions and of the shard."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{repeat}/{name}".encode()).digest()[:4], "big")


def _record(sample: Sample, benchmark: str, config: str, folder: Path) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "id": sample.row.id,
        "repeat": sample.repeat,
        "config": config,
        "correct": sample.correct,
        "score": sample.score,
        "seconds": sample.trajectory.seconds,
        "lengths": sample.lengths,
        "calls": len(sample.trajectory.tool_calls()),
        "cost_usd": sample.cost_usd,
        "row": to_record(_by_reference(sample.row, folder)),
        "trajectory": sample.trajectory.to_json(),
    }


def _by_reference(row: Row, folder: Path) -> Row:
    """The row with image bytes moved to a file in the folder, and without its further images, which are not shown."""
    if isinstance(row.image, str):
        return dataclasses.replace(row, image=portable(row.image, folder), more_images=())
    ending = jsonl.data_url(row.image[:16]).partition(";")[0].rpartition("/")[2]
    file = f"{IMAGES}/{hashlib.sha256(row.image).hexdigest()[:32]}.{ending}"
    if not (folder / file).is_file():
        (folder / IMAGES).mkdir(exist_ok=True)
        (folder / file).write_bytes(row.image)
    return dataclasses.replace(row, image=file, more_images=())


def _check(rows: Sequence[Row], evaluation: Evaluation) -> None:
    name = evaluation.name
    if not rows:
        raise DataError(f"evaluation '{name}' has no rows: check the benchmark's path and limits")
    if (ids := len({row.id for row in rows})) < len(rows):
        raise DataError(f"evaluation '{name}': rows have repeated ids, {len(rows)} rows but {ids} ids")
    if evaluation.evidence is not None and all(evaluation.evidence(row) is None for row in rows):
        raise DataError(
            f"eval.oracle: the rows of {evaluation.benchmark} have no evidence in meta['evidence'] "
            "(docs/evaluation.md lists the sets that support the oracle)"
        )


def _oracle(evaluation: Evaluation, row: Row) -> OracleTools | None:
    if evaluation.evidence is None:
        return None
    return OracleTools(evaluation.evidence(row) or Evidence())


def _readable(rows: Sequence[Row], use: Use) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows that can be asked (images at URLs are fetched), and the reasons for the others; both by row id."""
    different = list({row.id: row for row in rows}.values())
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        looked = list(pool.map(lambda row: _looked_at(row, use), different))
    readable = {row.id: row for row in looked if isinstance(row, Row)}
    unreadable = {row.id: why for row, why in zip(different, looked, strict=True) if isinstance(why, str)}
    return readable, unreadable


def _looked_at(row: Row, use: Use) -> Row | str:
    if len(row.images) == 1 and isinstance(row.image, str) and row.image.startswith(image_urls.SCHEMES):
        # Fetched once, for the judgement and for the episodes.
        try:
            row = embed_images(row)
        except ImageError as error:
            return f"image: {error}"
    return why_unusable(row, use) or row


async def _wait_ready(tool_client: ToolClient, timeout_s: float) -> None:
    try:
        await tool_client.wait_ready(timeout_s)
    finally:
        await tool_client.close()
