"""The commands that evaluate, from a config and a work folder: who answers, which benchmarks, what is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mmsearch_jax.core.chat_client import ChatEndpoint
from mmsearch_jax.core.config_files import as_arguments
from mmsearch_jax.core.errors import CheckpointError, ConfigError, DataError, MMSearchError, ToolFailed
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.distributed.processes import first_process_first, largest_of_all
from mmsearch_jax.evaluation.benchmark_run import Evaluation, EvidenceOf, evaluate
from mmsearch_jax.evaluation.benchmarks import Benchmark, Loaded, load_rows
from mmsearch_jax.evaluation.budget import EvaluationBudget
from mmsearch_jax.evaluation.conclude import conclude, right_by_id
from mmsearch_jax.evaluation.fingerprint import fingerprint
from mmsearch_jax.evaluation.judging import Judging
from mmsearch_jax.evaluation.oracle import Evidence, given_evidence
from mmsearch_jax.evaluation.policies import EnginePolicy, EvaluatedPolicy
from mmsearch_jax.evaluation.samples import RUN_FILE, WHOLE, Shard, read_stamp, write_json
from mmsearch_jax.evaluation.served_policy import Prices, ServedPolicy
from mmsearch_jax.jobs import parts as stages
from mmsearch_jax.miniworld.evidence import gold_results
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.models import policies as models
from mmsearch_jax.models.adapters import load_adapter
from mmsearch_jax.models.lora import merge_lora
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.sequence import EngineConfig

Config = Any
"""An `ml_collections.ConfigDict`, whose values have no types that a checker could follow."""
MINIWORLD, SUITE_FILE = "miniworld", "suite.json"
_ADAPTER = "adapter_config.json"


class Suite(NamedTuple):
    """What came of a run over benchmarks: summaries, and of those that did not run how to have them."""

    summaries: list[dict[str, Any]]
    missing: dict[str, str]


def run_eval(config: Config, workdir: Path, rows: list[Row] | None = None, shard: Shard = WHOLE) -> dict[str, Any]:
    """One evaluation on the real mini-world; returns its summary."""
    rows = _limited(config, _miniworld_rows(config, workdir) if rows is None else rows)
    rules = _rules(config, config.episode)
    evidence = miniworld_evidence() if config.eval.oracle else None
    evaluation = _evaluation(config, workdir, config.eval.name, MINIWORLD, rules, evidence=evidence)
    with _tools(config, workdir, rules, evidence) as url:
        return _evaluate(config, workdir, policy_of(config), rows, evaluation, url, _budget(config), shard)


def run_suite(config: Config, workdir: Path, shard: Shard = WHOLE) -> Suite:
    """Every benchmark of the config that is there.

    Raises:
      ConfigError: an unknown benchmark, or a setting that cannot be.
      MMSearchError: of the benchmarks that are there, none could be run; says why of the first.
    """
    names = _chosen(config)
    policy, budget = policy_of(config), _budget(config)
    summaries, missing, failed = [], dict[str, str](), list[MMSearchError]()
    for name in names:
        try:
            summaries.append(_run_benchmark(config, workdir, name, policy, budget, shard))
        except _Missing as error:
            missing[name] = str(error)
        except ConfigError:
            raise
        except MMSearchError as error:
            # What is wrong with one set, or with its server, does not cost the others.
            missing[name] = f"failed: {error}"
            failed.append(error)
    root = workdir / "eval" / config.eval.name
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / SUITE_FILE, {"summaries": [summary["name"] for summary in summaries], "missing": missing})
    if failed and not summaries:
        raise failed[0]
    return Suite(summaries, missing)


def conclude_runs(config: Config, workdir: Path) -> Suite:
    """Judges and scores anew what the logs of a run hold, of all shards; the policy is not asked.

    Raises:
      DataError: there is no such run.
    """
    root = workdir / "eval" / config.eval.name
    folders = [root] if "benchmarks" not in config else [root / name for name in _chosen(config)]
    found = [folder for folder in folders if (folder / RUN_FILE).is_file()]
    if not found:
        raise DataError(f"no samples in {root}: run the evaluation first, or give its --workdir and --config.eval.name")
    summaries, broken = [], dict[str, str]()
    for folder in found:
        benchmark = read_stamp(folder).identity["benchmark"]
        try:
            summaries.append(conclude(folder, _judging(config, benchmark), direct=_direct(config, workdir, benchmark)))
        except ToolFailed as error:
            broken[benchmark] = f"failed: {error}"
    return Suite(summaries, broken)


def all_processes_done(config: Config, workdir: Path) -> Suite | None:
    """Waits for the other processes, then merges their parts on process 0; None on the others."""
    largest_of_all(0)
    return conclude_runs(config, workdir) if jax.process_index() == 0 else None


def policy_of(config: Config) -> EvaluatedPolicy:
    """Who answers: the endpoint if one is named, else the checkpoint (ours, Hugging Face's, or a LoRA adapter).

    Raises:
      CheckpointError: there is none, or it cannot be loaded.
    """
    if config.endpoint.url:
        settings = as_arguments(config.endpoint)
        prices = Prices(settings.pop("price_prompt"), settings.pop("price_reply"))
        return ServedPolicy(_endpoint(settings, "endpoint"), prices)
    policy, identity = checkpoint_of(config)

    def make_engine(rules: EpisodeConfig) -> Engine:
        length = rules.max_trajectory_tokens
        shorter = tuple(bucket for bucket in config.engine.length_buckets if bucket < length)
        sizes = {**as_arguments(config.engine), "max_length": length, "length_buckets": shorter, "seed": config.seed}
        return Engine(policy.model, policy.tokenizer, policy.image_processor, EngineConfig(**sizes))

    return EnginePolicy(make_engine, identity)


def checkpoint_of(config: Config) -> tuple[models.Policy, dict[str, Any]]:
    """The config's checkpoint, an adapter merged into its base; and what tells it from others.

    Raises:
      CheckpointError: as `policy_of`.
    """
    folder, adapter = Path(config.checkpoint), None
    if (folder / _ADAPTER).is_file():
        record = json.loads((folder / _ADAPTER).read_text(encoding="utf-8"))
        folder, adapter = Path(config.base or record.get("base_model_name_or_path") or ""), folder
        if not folder.is_dir():
            raise CheckpointError(
                f"{adapter} is an adapter of '{folder}', which is no folder here: give it with --config.base=DIR"
            )
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.checkpoint = str(folder)
    policy = stages.policy_of(changed, np.dtype(config.dtype))
    if adapter is not None:
        policy = dataclasses.replace(policy, model=merge_lora(load_adapter(policy.model, adapter)))
    identity = {
        "kind": "checkpoint" if adapter is None else "adapter",
        "dtype": config.dtype,
        "max_pixels": config.max_pixels,
        "fingerprint": fingerprint(folder, *([adapter] if adapter is not None else [])),
    }
    return policy, identity


def miniworld_evidence() -> EvidenceOf:
    """The oracle of the real mini-world."""
    entities = {entity.id: entity for entity in RealWorld().entities}

    def of(row: Row) -> Evidence:
        box = row.placements[row.target].box if row.target is not None else None
        return Evidence(*gold_results(row, entities), box)

    return of


class _Missing(MMSearchError):
    """A set that is not there."""


def _run_benchmark(
    config: Config, workdir: Path, name: str, policy: EvaluatedPolicy, budget: EvaluationBudget, shard: Shard
) -> dict[str, Any]:
    settings, own = config.benchmarks[name], name == MINIWORLD
    folder = f"{config.eval.name}/{name}"
    if own:
        tiny = settings.tiny_rules and not config.endpoint.url
        rules, metric, skipped = _rules(config, settings.episode if tiny else config.episode), "match", {}
        rows = _miniworld_rows(config, workdir)
    else:
        rules, metric = _rules(config, config.episode), settings.metric
        rows, skipped = _loaded(config, name, workdir / "eval" / folder)
    evidence = (miniworld_evidence() if own else given_evidence) if config.eval.oracle else None
    evaluation = _evaluation(config, workdir, folder, name, rules, metric=metric, skipped=skipped, evidence=evidence)
    if own:
        config = config.copy_and_resolve_references()
        with config.unlocked():
            # Of what the mini-world knows, no other server has heard.
            config.tools.url = ""
    elif not config.tools.url and rules.mode != "direct" and evidence is None:
        raise _Missing("needs a search server: start one with `mmsearch serve-tools`, and give --config.tools.url")
    with _tools(config, workdir, rules, evidence) as url:
        return _evaluate(config, workdir, policy, _limited(config, rows), evaluation, url, budget, shard)


def _evaluate(
    config: Config,
    workdir: Path,
    policy: EvaluatedPolicy,
    rows: list[Row],
    evaluation: Evaluation,
    url: str,
    budget: EvaluationBudget,
    shard: Shard,
) -> dict[str, Any]:
    return evaluate(
        policy,
        rows,
        evaluation,
        stages.tool_client(config, url) if url else None,
        workdir,
        shard=shard,
        budget=budget,
        if_changed=config.eval.if_changed,
    )


def _miniworld_rows(config: Config, workdir: Path) -> list[Row]:
    with first_process_first():
        world = stages.prepare_world(config, workdir, stages.EVALUATION_WORLD)
    return read_rows(world / "eval")


def _loaded(config: Config, name: str, folder: Path) -> Loaded:
    settings = config.benchmarks[name]
    values = {**as_arguments(settings), "only": settings.only.to_dict()}
    benchmark = Benchmark(name, **values)
    try:
        return load_rows(benchmark, Path(config.data), folder, config.seed)
    except DataError as error:
        raise _Missing(f"{error}; get it from {settings.where}") from error


@contextmanager
def _tools(config: Config, workdir: Path, rules: EpisodeConfig, evidence: EvidenceOf | None) -> Iterator[str]:
    """The address of the config's search server, or of one over the mini-world; "" where none is asked."""
    if rules.mode == "direct" or evidence is not None:
        yield ""
        return
    world = Path() if config.tools.url else stages.prepare_world(config, workdir, stages.EVALUATION_WORLD)
    with stages.tools(config, world) as url:
        yield url


def _evaluation(
    config: Config, workdir: Path, name: str, benchmark: str, rules: EpisodeConfig, **more: Any
) -> Evaluation:
    settings = config.eval
    return Evaluation(
        name,
        benchmark,
        rules,
        samples=settings.samples,
        temperature=settings.temperature,
        seed=config.seed,
        checkpoint=config.endpoint.model if config.endpoint.url else str(config.checkpoint),
        judging=_judging(config, benchmark),
        direct=_direct(config, workdir, benchmark),
        **more,
    )


def _rules(config: Config, episode: Config) -> EpisodeConfig:
    settings = config.eval
    rules = EpisodeConfig(
        **{
            **as_arguments(episode),
            "mode": settings.mode,
            "allow_text": settings.allow_text,
            "allow_image": settings.allow_image,
            "allow_crop": settings.allow_crop,
        }
    )
    if settings.max_text_searches:
        rules = dataclasses.replace(rules, max_text_searches=settings.max_text_searches)
    return rules


def _judging(config: Config, benchmark: str) -> Judging | None:
    if not config.judge.url:
        return None
    grades = benchmark != MINIWORLD and config.benchmarks[benchmark].metric == "simplevqa"
    return Judging(_endpoint(as_arguments(config.judge), "judge"), grades)


def _direct(config: Config, workdir: Path, benchmark: str) -> Mapping[str, bool] | None:
    if not config.eval.direct:
        return None
    root = workdir / "eval" / config.eval.direct
    return right_by_id(root / benchmark if (root / benchmark).is_dir() else root)


def _chosen(config: Config) -> list[str]:
    names = [name.strip() for name in config.only.split(",") if name.strip()] or list(config.benchmarks)
    if unknown := [name for name in names if name not in config.benchmarks]:
        raise ConfigError(f"only: unknown benchmark '{unknown[0]}', expected some of {', '.join(config.benchmarks)}")
    return names


def _limited(config: Config, rows: list[Row]) -> list[Row]:
    return rows[: config.eval.limit] if config.eval.limit else rows


def _budget(config: Config) -> EvaluationBudget:
    return EvaluationBudget(**as_arguments(config.budget))


def _endpoint(settings: Mapping[str, Any], section: str) -> ChatEndpoint:
    try:
        return ChatEndpoint(**settings)
    except ConfigError as error:
        raise ConfigError(f"{section}: {error}") from error
