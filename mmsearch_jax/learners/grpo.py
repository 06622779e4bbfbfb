"""Group relative policy optimisation with live search.

Each step takes prompts, rolls each out G times with the live tools, scores the rollouts, compares them within their groups, and
updates the policy on exactly the tokens that were sampled. It differs from textbook GRPO in three ways: advantages are not
divided by the group's standard deviation by default (DeepMMSearch-R1, sec. 3.2), observation tokens never receive loss, and
episodes that failed for reasons outside the policy are left out of their group instead of being scored 0.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmsearch_jax.core.trajectory import Trajectory, write_jsonl
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.set_aside import SetAside
from mmsearch_jax.distributed.processes import largest_of_all, sums_of_all
from mmsearch_jax.learners.checkpoints import Best
from mmsearch_jax.learners.groups import Groups, every_episode_failed, group, rollout_metrics, step_totals
from mmsearch_jax.learners.held_out import BEST, HeldOut, in_words
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.policy_update import PolicyUpdater, Updated, fitting, training_sequence
from mmsearch_jax.learners.prompts import Prompts
from mmsearch_jax.learners.throughput import utilisation
from mmsearch_jax.learners.train_state import TrainState, make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunPlace, TrainingRun
from mmsearch_jax.models.lora import lora_layers
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.rollout.engine_group import Sampler
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.learning import GRPOConfig
from mmsearch_jax.settings.policy import MeshConfig
from mmsearch_jax.settings.rollout import EpisodeConfig


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """One step's trajectories of this process, scored and grouped.

    Attributes:
      prompts_taken: number of prompts taken so far.
      engines: number of this process's engines that sampled.
    """

    trajectories: list[Trajectory]
    rows: dict[str, Row]
    images: dict[str, bytes]
    groups: Groups
    prompts_taken: int
    engines: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Environment:
    """What the episodes run with, and how they are scored.

    Attributes:
      engine: samples on all chips of this host; its weights are replaced after every step.
      tools: the client of the live tools.
      rules: the rules of the episodes.
      scorer: computes the rewards of trajectories.
      ready_timeout_s: how long to wait for the search server after a step in which every trajectory failed without it.
    """

    engine: Sampler
    tools: ToolClient
    rules: EpisodeConfig
    scorer: Scorer
    ready_timeout_s: float = 60.0


def train(
    model: Qwen2_5_VL,
    rows: Sequence[Row],
    config: GRPOConfig,
    environment: Environment,
    place: RunPlace,
    *,
    mesh: LearnerMesh | None = None,
    seed: int = 0,
    aside: SetAside | None = None,
    held_out: HeldOut | None = None,
) -> Qwen2_5_VL:
    """Trains the policy against the live tools and returns it; the given model is the frozen reference.

    Args:
      rows: prompts with gold answers; visited repeatedly, in an order that `seed` defines.
      config: settings of GRPO. A rollout batch is split into as many of its batches as needed. If "vision" is frozen, the
        reference shares it and image features stay cached.
      aside: the rows that are passed over; those that turn out to be unusable are added. None: such a row ends the run.
      mesh: devices of the learner; by default all devices, with weights and rows split.
      held_out: rows on which the running policy is evaluated at intervals; the best checkpoint by it is kept, instead of the
        one with the highest reward.

    Raises:
      DataError: there are no rows, two have the same id, or too many turned out to be unusable.
      ToolUnavailable: every trajectory of a step failed because the tools were unavailable.
      TrainingDiverged, Preempted, CheckpointError: see `TrainingRun`.
    """
    mesh = mesh or LearnerMesh.of(MeshConfig())
    engine, freeze = environment.engine, config.freeze
    graph, reference, frozen = split_model(model, freeze)
    transformation = make_optimizer(config.optimizer, config.num_steps * config.updates_per_batch * config.epochs)
    state = mesh.train_state(reference, frozen, transformation)
    full = not lora_layers(model)
    updater = PolicyUpdater(
        graph,
        mesh.place(reference),
        transformation,
        config,
        model.config,
        mesh,
        full=full,
        train_vision=full and "vision" not in freeze,
    )
    sampler = _Sampler(environment, Prompts(rows, seed, aside), config, seed)
    run = TrainingRun(place, config.num_steps, best=Best("reward", largest=True) if held_out is None else BEST)

    async def evaluate(step: int, params: Any) -> dict[str, Any]:
        """Metrics of the policy after `step` updates; none if it is not evaluated then."""
        if held_out is None or not held_out.due(step, config.num_steps):
            return {}
        engine.set_weights(params, step, keep_image_features="vision" in freeze)
        measured = await held_out.measure(environment)
        run.say(in_words(step, measured))
        return measured

    async def loop() -> TrainState:
        nonlocal state
        with run:
            state, start, position = run.begin(state)
            taken = (position or {"prompts": 0})["prompts"] // jax.process_count()
            ahead: asyncio.Task[Rollouts] | None = None
            if position is None and (measured := await evaluate(0, state.params)):
                run.record_start(state, measured, {"prompts": 0})
            for step in range(start, config.num_steps):
                began = time.monotonic()
                if ahead is None:
                    engine.set_weights(state.params, step, keep_image_features="vision" in freeze)
                    synced = time.monotonic()
                    rollouts = await sampler.roll_out(taken)
                else:
                    rollouts = await ahead
                    synced = began
                    engine.set_weights(state.params, step, keep_image_features="vision" in freeze)
                waited = time.monotonic()
                taken = rollouts.prompts_taken
                ahead = None
                if config.overlap and step + 1 < config.num_steps:
                    ahead = asyncio.create_task(sampler.roll_out(taken))
                metrics = rollout_metrics(rollouts.trajectories, rollouts.rows)
                if every_episode_failed(rollouts.trajectories):
                    await environment.tools.wait_ready(environment.ready_timeout_s)
                learnt = rollouts.groups.learnt
                # Prepared once for each prompt: the trajectories of a group share the object, and its room in a batch.
                shown = {
                    name: engine.prepare_image(rollouts.images[name]).processed if rollouts.images[name] else None
                    for name in {t.row_id for t, _ in learnt}
                }
                sequences, too_long = fitting(
                    [training_sequence(t, a, shown[t.row_id], model.config) for t, a in learnt], updater.shape
                )
                before = time.monotonic()
                # In a thread: with `overlap` the rollouts continue during the update.
                updated: Updated = await asyncio.to_thread(updater.learn, state, sequences)
                state = updated.state
                ended = time.monotonic()
                metrics |= updated.metrics | {
                    **step_totals(rollouts.groups, rollouts.trajectories, rollouts.seconds, too_long),
                    **({"set_aside_rows": largest_of_all(len(aside))} if aside is not None else {}),
                    "sync_seconds": synced - began,
                    "rollout_seconds": rollouts.seconds,
                    "wait_seconds": waited - synced,
                    "learn_seconds": ended - before,
                    "step_seconds": ended - began,
                    **sums_of_all({"sampling_engines": rollouts.engines}),
                    **(utilisation(updated.flops, ended - before) if updated.flops else {}),
                }
                if ahead is not None and held_out is not None and held_out.due(step + 1, config.num_steps):
                    # The engine gets other weights: its rollouts must have ended.
                    await asyncio.wait([ahead])
                measured = await evaluate(step + 1, state.params)
                _save_some(rollouts, config, place.workdir, step + 1)
                run.finish_step(
                    step + 1,
                    state,
                    metrics | measured,
                    lambda own=taken: {"prompts": largest_of_all(own) * jax.process_count()},
                    ("reward", "accuracy", "searches", "kl", "tokens_per_second", "eval_accuracy"),
                    keep=bool(measured),
                )
        return state

    async def whole() -> TrainState:
        try:
            return await loop()
        finally:
            await environment.tools.close()
            await sampler.close()

    final = asyncio.run(whole())
    return nnx.merge(graph, final.frozen, final.params)


class _Sampler:
    """Rolls out prompts until there are enough useful groups."""

    def __init__(self, environment: Environment, prompts: Prompts, config: GRPOConfig, seed: int):
        self._env, self._prompts, self._config, self._seed = environment, prompts, config, seed
        self._share = config.prompts_of_process(jax.process_count())

    async def roll_out(self, taken: int) -> Rollouts:
        """One step's rollouts, starting at this process's prompt number `taken`."""
        began, config = time.monotonic(), self._config
        trajectories: list[Trajectory] = []
        rows: dict[str, Row] = {}
        images: dict[str, bytes] = {}
        wanted, grouped = self._share, Groups([], 0, 0)
        before = self._work_by_engine()
        for _ in range(config.sampling_rounds):
            # In a thread: images are fetched and decoded.
            chosen, taken = await asyncio.to_thread(self._prompts.take, taken, wanted, self._env.engine.prepare_image)
            rows |= {row.id: row for _, row, _ in chosen}
            images |= {row.id: encoded for _, row, encoded in chosen}
            made = await run_episodes(
                self._env.engine,
                self._requests(chosen),
                self._env.rules,
                self._env.tools,
                keep_per_group=config.group_size if config.oversample else None,
            )
            await self._env.scorer.score(made, rows)
            trajectories += made
            grouped = group(
                trajectories,
                min_group=config.min_group,
                skip_uniform=config.skip_uniform,
                normalise_std=config.normalise_std,
                at_most=self._share,
            )
            wanted = self._share - grouped.num_useful
            if not wanted:
                break
        engines = sum(now > then for now, then in zip(self._work_by_engine(), before, strict=True))
        return Rollouts(trajectories, rows, images, grouped, taken, engines, time.monotonic() - began)

    def _work_by_engine(self) -> list[int]:
        return [engine.stats.sampled_tokens for engine in self._env.engine.engines]

    async def close(self) -> None:
        """Frees the scorer's resources."""
        await self._env.scorer.close()

    def _requests(self, chosen: Sequence[tuple[int, Row, bytes]]) -> list[EpisodeRequest]:
        sampling = SamplingParams(temperature=self._config.temperature)
        requests = []
        for place, row, encoded in chosen:
            for member in range(self._config.group_size + self._config.oversample):
                number = int(np.random.default_rng([self._seed, place, member]).integers(2**31))
                requests.append(EpisodeRequest(row.id, f"{place}-{row.id}", row.question, encoded, number, sampling))
        return requests


def _save_some(rollouts: Rollouts, config: GRPOConfig, workdir: Path, step: int) -> None:
    """Writes the trajectories of the first groups for inspection."""
    names = list(dict.fromkeys(t.group_id for t in rollouts.trajectories))[: config.save_groups]
    suffix = f".{jax.process_index()}" if jax.process_count() > 1 else ""
    shown = [t for t in rollouts.trajectories if t.group_id in names]
    write_jsonl(shown, workdir / "rollouts" / f"{step:05d}{suffix}.jsonl")
