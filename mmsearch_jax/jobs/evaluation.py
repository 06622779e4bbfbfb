"""`mmsearch eval`: selects the policy and the benchmarks, runs them, writes the results."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mmsearch_jax.core.errors import ConfigError, DataError, MMSearchError, ToolFailed
from mmsearch_jax.core.settings import plain
from mmsearch_jax.core.staging import pull_all, push_all
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.distributed.processes import largest_of_all
from mmsearch_jax.evaluation.benchmark_run import Evaluation, EvidenceOf, evaluate
from mmsearch_jax.evaluation.benchmarks import LoadedRows, check_present, load_rows
from mmsearch_jax.evaluation.budget import EvaluationBudget
from mmsearch_jax.evaluation.conclude import conclude, right_by_id
from mmsearch_jax.evaluation.judging import Judging
from mmsearch_jax.evaluation.oracle import Evidence, given_evidence
from mmsearch_jax.evaluation.policies import EnginePolicy, EvaluatedPolicy
from mmsearch_jax.evaluation.samples import WHOLE, Shard, read_stamp, write_json
from mmsearch_jax.evaluation.served_policy import Prices, ServedPolicy
from mmsearch_jax.jobs.identities import MINIWORLD, evaluated_folders, evaluated_policy, require_samples
from mmsearch_jax.jobs.policies import named_policy
from mmsearch_jax.jobs.search_tools import search_server, tool_client
from mmsearch_jax.jobs.worlds import EVALUATION_WORLD, prepare_world
from mmsearch_jax.miniworld.evidence import gold_results
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.models.adapters import load_adapter
from mmsearch_jax.models.lora import merge_lora
from mmsearch_jax.models.policies import Policy
from mmsearch_jax.rollout.engine_group import EngineGroup
from mmsearch_jax.settings.commands import EvaluationSettings
from mmsearch_jax.settings.evaluation import NO_SERVER, BenchmarkConfig
from mmsearch_jax.settings.rollout import EpisodeConfig

SUITE_FILE = "suite.json"


class Suite(NamedTuple):
    """Results of a run over benchmarks: summaries, and for each benchmark that did not run the reason."""

    summaries: list[dict[str, Any]]
    missing: dict[str, str]


def run_eval(
    settings: EvaluationSettings, workdir: Path, rows: list[Row] | None = None, shard: Shard = WHOLE
) -> dict[str, Any]:
    """Runs one evaluation on the real mini-world; returns its summary.

    Args:
      rows: the questions, by default all of the mini-world's evaluation rows.
    """
    rules = settings.rules()
    evidence = miniworld_evidence() if settings.eval.oracle else None
    rows = _miniworld_rows(settings, workdir) if rows is None else rows
    evaluation = _evaluation(settings, workdir, settings.eval.name, MINIWORLD, rules, evidence=evidence)
    with _tools(settings, workdir, rules, evidence) as url:
        return _evaluate(settings, workdir, named_evaluated(settings), rows, evaluation, url, _budget(settings), shard)


def run_suite(settings: EvaluationSettings, workdir: Path, shard: Shard = WHOLE) -> Suite:
    """Runs every set of the settings whose data are present.

    Raises:
      ConfigError: an invalid setting.
      DataError: a set that was asked for by name is missing; nothing is loaded or started then.
      MMSearchError: none of these benchmarks could be run; the message gives the first one's reason.
    """
    if settings.named or settings.rows.path:
        for name in settings.chosen:
            _require(settings, name)
    policy, budget = named_evaluated(settings), _budget(settings)
    summaries, missing, failed = [], dict[str, str](), list[MMSearchError]()
    for name in settings.chosen:
        try:
            summaries.append(_run_benchmark(settings, workdir, name, policy, budget, shard))
        except _Missing as error:
            missing[name] = str(error)
        except ConfigError:
            raise
        except MMSearchError as error:
            # An error of one set, or of its server, must not stop the others.
            missing[name] = f"failed: {error}"
            failed.append(error)
    root = workdir / "eval" / settings.eval.name
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / SUITE_FILE, {"summaries": [summary["name"] for summary in summaries], "missing": missing})
    if failed and not summaries:
        raise failed[0]
    return Suite(summaries, missing)


def conclude_runs(settings: EvaluationSettings, workdir: Path) -> Suite:
    """Judges and scores the logged samples of a run again, from all shards, without the policy.

    Raises:
      DataError: there is no such run.
    """
    found = require_samples(settings, workdir)
    summaries, broken = [], dict[str, str]()
    for folder in found:
        benchmark = read_stamp(folder).identity["benchmark"]
        direct = _direct(settings, workdir, benchmark)
        try:
            summaries.append(conclude(folder, _judging(settings, benchmark), direct=direct))
        except ToolFailed as error:
            broken[benchmark] = f"failed: {error}"
    return Suite(summaries, broken)


def all_processes_done(settings: EvaluationSettings, workdir: Path) -> Suite | None:
    """Waits for the other processes, then merges their parts on process 0; None on the others."""
    push_all()
    largest_of_all(0)
    pull_all()
    return conclude_runs(settings, workdir) if jax.process_index() == 0 else None


def named_evaluated(settings: EvaluationSettings) -> EvaluatedPolicy:
    """The policy to evaluate: the endpoint if one is named, else the checkpoint (ours, Hugging Face's, or a LoRA adapter).

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be loaded.
    """
    own = settings.endpoint
    if own.url:
        return ServedPolicy(own, Prices(own.price_prompt, own.price_reply))
    policy, identity = named_checkpoint(settings)

    def engine_for(rules: EpisodeConfig) -> EngineGroup:
        # Not the configured length: the engine must fit these episodes.
        sized = dataclasses.replace(settings.engine, max_length=rules.max_trajectory_tokens)
        return EngineGroup(policy.model, policy.tokenizer, policy.image_processor, sized, settings.seed)

    return EnginePolicy(engine_for, identity, policy.image_processor)


def named_checkpoint(settings: EvaluationSettings) -> tuple[Policy, dict[str, Any]]:
    """The policy at `checkpoint`, with an adapter merged into its base, and the record that identifies it.

    Raises:
      CheckpointError: see `named_evaluated`.
    """
    folder, adapter = evaluated_folders(settings)
    policy = named_policy(settings.replace(checkpoint=str(folder)), np.dtype(settings.dtype))
    if adapter is not None:
        policy = dataclasses.replace(policy, model=merge_lora(load_adapter(policy.model, adapter)))
    return policy, evaluated_policy(settings, folder, adapter)


def miniworld_evidence() -> EvidenceOf:
    """Evidence of the real mini-world for the oracle."""
    entities = {entity.id: entity for entity in RealWorld().entities}

    def of(row: Row) -> Evidence:
        box = row.placements[row.target].box if row.target is not None else None
        return Evidence(*gold_results(row, entities), box)

    return of


class _Missing(MMSearchError):
    """A set whose data are not present."""


def _require(settings: EvaluationSettings, name: str) -> None:
    """Checks that a set can be asked here.

    Raises:
      DataError: its files are missing, or there is no search server for it.
    """
    benchmark = settings.sets[name]
    if benchmark.source == MINIWORLD:
        return
    try:
        check_present(benchmark, Path(settings.data))
    except DataError as error:
        hint = f"; get it from {benchmark.where}" if benchmark.where else ""
        raise DataError(f"{name}: {error}{hint}") from error
    if settings.lacks_server(name):
        raise DataError(f"{name}: {NO_SERVER}")


def _run_benchmark(
    settings: EvaluationSettings,
    workdir: Path,
    name: str,
    policy: EvaluatedPolicy,
    budget: EvaluationBudget,
    shard: Shard,
) -> dict[str, Any]:
    benchmark, folder = settings.sets[name], f"{settings.eval.name}/{name}"
    own, rules = benchmark.source == MINIWORLD, settings.rules(name)
    if own:
        loaded = LoadedRows(_miniworld_rows(settings, workdir), Counter())
        # Other servers do not have the mini-world's pages.
        settings = settings.replace(tools=dataclasses.replace(settings.tools, url=""))
    else:
        loaded = _loaded(settings, benchmark, workdir / "eval" / folder)
    evidence = (miniworld_evidence() if own else given_evidence) if settings.eval.oracle else None
    if settings.lacks_server(name):
        raise _Missing(NO_SERVER)
    evaluation = _evaluation(
        settings, workdir, folder, name, rules, metric=benchmark.metric, skipped=loaded.skipped, evidence=evidence
    )
    with _tools(settings, workdir, rules, evidence) as url:
        return _evaluate(settings, workdir, policy, loaded.rows, evaluation, url, budget, shard)


def _evaluate(
    settings: EvaluationSettings,
    workdir: Path,
    policy: EvaluatedPolicy,
    rows: list[Row],
    evaluation: Evaluation,
    url: str,
    budget: EvaluationBudget,
    shard: Shard,
) -> dict[str, Any]:
    client = tool_client(settings.tools, url) if url else None
    rows = rows[: settings.eval.limit] if settings.eval.limit else rows
    return evaluate(
        policy,
        rows,
        evaluation,
        client,
        workdir,
        shard=shard,
        budget=budget,
        if_changed=settings.eval.if_changed,
        max_unusable=settings.eval.max_unusable,
    )


def _miniworld_rows(settings: EvaluationSettings, workdir: Path) -> list[Row]:
    return read_rows(prepare_world(settings, workdir, EVALUATION_WORLD) / "eval")


def _loaded(settings: EvaluationSettings, benchmark: BenchmarkConfig, folder: Path) -> LoadedRows:
    try:
        return load_rows(benchmark, Path(settings.data), folder, settings.seed)
    except DataError as error:
        raise _Missing(f"{error}; get it from {benchmark.where}") from error


@contextmanager
def _tools(
    settings: EvaluationSettings, workdir: Path, rules: EpisodeConfig, evidence: EvidenceOf | None
) -> Iterator[str]:
    """The address of the search server; "" if no episode calls one."""
    if rules.mode == "direct" or evidence is not None:
        yield ""
        return
    world = Path() if settings.tools.url else prepare_world(settings, workdir, EVALUATION_WORLD)
    with search_server(settings.tools, world) as url:
        yield url


def _evaluation(
    settings: EvaluationSettings, workdir: Path, name: str, benchmark: str, rules: EpisodeConfig, **more: Any
) -> Evaluation:
    return Evaluation(
        name,
        benchmark,
        rules,
        samples=settings.eval.samples,
        temperature=settings.eval.temperature,
        seed=settings.seed,
        checkpoint=settings.endpoint.model if settings.endpoint.url else settings.checkpoint,
        judging=_judging(settings, benchmark),
        direct=_direct(settings, workdir, benchmark),
        settings=plain(settings),
        **more,
    )


def _judging(settings: EvaluationSettings, benchmark: str) -> Judging | None:
    if not settings.judge.url:
        return None
    named = settings.sets.get(benchmark)
    return Judging(settings.judge, named is not None and named.metric == "simplevqa")


def _direct(settings: EvaluationSettings, workdir: Path, benchmark: str) -> Mapping[str, bool] | None:
    if not settings.eval.direct:
        return None
    root = workdir / "eval" / settings.eval.direct
    return right_by_id(root / benchmark if (root / benchmark).is_dir() else root)


def _budget(settings: EvaluationSettings) -> EvaluationBudget:
    return EvaluationBudget(**dataclasses.asdict(settings.budget))
