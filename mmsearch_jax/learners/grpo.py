"""Group relative policy optimisation with live search.

Each step: take prompts, roll each out G times with the live tools, score, compare within the groups, and update the
policy on the very tokens that were sampled. It differs from textbook GRPO in this: advantages are not divided by the
group's standard deviation unless asked (DeepMMSearch-R1, sec. 3.2), observation tokens never receive loss, and episodes
that broke through no fault of the policy are left out of their group instead of being scored 0.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.core.trajectory import Trajectory, write_jsonl
from mmsearch_jax.data.batches import BatchShape
from mmsearch_jax.data.rows import Row, read_image
from mmsearch_jax.distributed.mesh import MeshConfig
from mmsearch_jax.distributed.processes import largest_of_all
from mmsearch_jax.learners.checkpoints import Best
from mmsearch_jax.learners.groups import Groups, group, rollout_metrics
from mmsearch_jax.learners.losses import GRPOLossConfig
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.policy_update import PolicyUpdater, Updated, training_sequence
from mmsearch_jax.learners.throughput import utilisation
from mmsearch_jax.learners.train_state import OptimizerConfig, TrainState, make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunConfig, TrainingRun
from mmsearch_jax.models.lora import lora_layers
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rewards.compose import RewardConfig, Scorer
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.rollout.tool_client import ToolClient


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
    """What a run of GRPO is made of.

    Attributes:
      num_steps: rollout batches.
      prompts_per_step, group_size: each step samples `prompts_per_step` x `group_size` trajectories, of all processes.
      oversample: further trajectories of each group; once `group_size` have ended, the rest are cut off. Nobody waits for the
        slowest search, and a broken episode is made up for.
      sampling_rounds: with more than 1, prompts whose groups are uniform or too small are replaced by the next ones, so many
        times at most (DAPO's dynamic sampling, arXiv 2503.14476).
      updates_per_batch: mini-batches of a rollout batch; each makes an update.
      epochs: times that a rollout batch is learnt from.
      overlap: roll out the next batch while this one is learnt: its policy is one update behind, which the ratios correct.
      temperature: of sampling, and of the log-probs in the loss: what is optimised is the policy as it is sampled. Below 1
        the trajectories fail less by mere chance, and the rewards tell more about what greedy decoding gets wrong.
      normalise_std: see `learners.advantages`.
      min_group: groups with fewer sound trajectories are dropped (and counted).
      skip_uniform: leave out groups whose rewards are all equal: they have no gradient except the KL's.
      save_groups: groups whose trajectories are written to rollouts/ at each step.
    """

    num_steps: int = 30
    prompts_per_step: int = 8
    group_size: int = 8
    oversample: int = 0
    sampling_rounds: int = 1
    updates_per_batch: int = 1
    epochs: int = 1
    overlap: bool = False
    temperature: float = 1.0
    normalise_std: bool = False
    min_group: int = 2
    skip_uniform: bool = True
    save_groups: int = 1
    loss: GRPOLossConfig = GRPOLossConfig()
    reward: RewardConfig = RewardConfig()

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(
                f"grpo.temperature is {self.temperature:g}, must be above 0: greedy trajectories of a group are all alike"
            )
        for name in ("prompts_per_step", "group_size", "sampling_rounds", "updates_per_batch", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"grpo.{name} is {getattr(self, name)}, must be at least 1")
        if self.group_size < self.min_group:
            raise ConfigError(
                f"grpo.group_size {self.group_size} is below min_group {self.min_group}: nothing would be learnt"
            )


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """One step's trajectories of this process, scored and grouped, and how many prompts were taken so far."""

    trajectories: list[Trajectory]
    rows: dict[str, Row]
    images: dict[str, bytes]
    groups: Groups
    prompts_taken: int
    seconds: float


class Prompts:
    """This process's share of the prompts: every P-th of an order that follows from the seed, each row once an epoch."""

    def __init__(self, rows: Sequence[Row], seed: int):
        self._rows, self._seed = rows, seed
        self._process, self._processes = jax.process_index(), jax.process_count()

    def take(self, taken: int, count: int) -> list[tuple[int, Row]]:
        """The next prompts of this process, which has taken so many before; each with its place in the common order."""
        places = [self._process + number * self._processes for number in range(taken, taken + count)]
        return [(place, prompt_at(self._rows, place, self._seed)) for place in places]


def prompt_at(rows: Sequence[Row], place: int, seed: int) -> Row:
    """The row at a place of the endless order: a fresh permutation each time that all rows were used."""
    epoch, within = divmod(place, len(rows))
    return rows[int(np.random.default_rng([seed, epoch]).permutation(len(rows))[within])]


def train(
    model: Qwen2_5_VL,
    engine: Engine,
    rows: Sequence[Row],
    tool_client: ToolClient,
    config: GRPOConfig,
    episode: EpisodeConfig,
    shape: BatchShape,
    optimizer: OptimizerConfig,
    workdir: str | Path,
    *,
    scorer: Scorer | None = None,
    run_config: RunConfig | None = None,
    mesh: LearnerMesh | None = None,
    seed: int = 0,
    freeze: tuple[str, ...] = ("vision",),
    identity: Mapping[str, Any] | None = None,
    ready_timeout_s: float = 60.0,
    show_progress: bool = True,
) -> Qwen2_5_VL:
    """Trains the policy against the live tools and returns it; the given model is the frozen reference.

    Args:
      engine: samples on this host's chips; its weights are replaced after every step.
      rows: prompts with gold answers; visited in an order that follows from `seed`, again and again.
      shape: of a learner's global batch; a rollout batch is split over as many as it needs.
      scorer: gives trajectories their rewards; by default by the answer match and `config.reward`.
      mesh: what the learner is spread over; by default all devices, weights and rows split.
      freeze: top-level modules that are not trained; with "vision" the reference shares it and features stay cached.
      identity: see `TrainingRun`.
      ready_timeout_s: how long the search server may be away once every trajectory of a step failed for lack of it.

    Raises:
      DataError: there is no row.
      ToolUnavailable: every trajectory of a step failed for lack of the tools.
      TrainingDiverged, Preempted, CheckpointError: see `TrainingRun`.
    """
    if not rows:
        raise DataError("there is no prompt to learn from: the set is empty, or a filter has left nothing")
    mesh = mesh or LearnerMesh.of(MeshConfig())
    graph, reference, frozen = split_model(model, freeze)
    transformation = make_optimizer(optimizer, config.num_steps * config.updates_per_batch * config.epochs)
    state = mesh.train_state(reference, frozen, transformation)
    full = not lora_layers(model)
    updater = PolicyUpdater(
        graph,
        mesh.place(reference),
        transformation,
        config.loss,
        model.config,
        mesh,
        shape,
        updates_per_batch=config.updates_per_batch,
        epochs=config.epochs,
        temperature=config.temperature,
        full=full,
        train_vision=full and "vision" not in freeze,
    )
    sampler = _Sampler(engine, Prompts(rows, seed), tool_client, scorer or Scorer(config.reward), config, episode, seed)
    run = TrainingRun(
        workdir,
        "grpo",
        config.num_steps,
        run_config or RunConfig(),
        identity=identity,
        best=Best("reward", largest=True),
        show_progress=show_progress,
    )

    async def loop() -> TrainState:
        nonlocal state
        with run:
            state, start, position = run.begin(state)
            taken = (position or {"prompts": 0})["prompts"] // jax.process_count()
            ahead: asyncio.Task[Rollouts] | None = None
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
                if metrics["dropped"] == sum(n for name, n in metrics.items() if name.startswith("status_")):
                    await tool_client.wait_ready(ready_timeout_s)
                sequences = [
                    training_sequence(t, a, engine.prepare_image(rollouts.images[t.row_id]).processed, model.config)
                    for t, a in rollouts.groups.learnt
                ]
                before = time.monotonic()
                # In a thread: with `overlap` the rollouts go on meanwhile.
                updated: Updated = await asyncio.to_thread(updater.learn, state, sequences)
                state = updated.state
                ended = time.monotonic()
                sampled = sum(trajectory.num_sampled for trajectory in rollouts.trajectories)
                metrics |= updated.metrics | {
                    "useful_groups": rollouts.groups.num_useful,
                    "uniform_groups": rollouts.groups.num_uniform,
                    "sync_seconds": synced - began,
                    "rollout_seconds": rollouts.seconds,
                    "wait_seconds": waited - synced,
                    "learn_seconds": ended - before,
                    "step_seconds": ended - began,
                    "tokens_per_second": sampled / rollouts.seconds,
                    **(utilisation(updated.flops, ended - before) if updated.flops else {}),
                }
                _save_some(rollouts, config, Path(workdir), step + 1)
                run.finish_step(
                    step + 1,
                    state,
                    metrics,
                    lambda own=taken: {"prompts": largest_of_all(own) * jax.process_count()},
                    ("reward", "accuracy", "searches", "kl", "tokens_per_second"),
                )
        return state

    async def whole() -> TrainState:
        try:
            return await loop()
        finally:
            await tool_client.close()
            await sampler.close()

    final = asyncio.run(whole())
    return nnx.merge(graph, final.frozen, final.params)


class _Sampler:
    """Rolls prompts out until there is enough to learn from."""

    def __init__(
        self,
        engine: Engine,
        prompts: Prompts,
        tool_client: ToolClient,
        scorer: Scorer,
        config: GRPOConfig,
        episode: EpisodeConfig,
        seed: int,
    ):
        self._engine, self._prompts, self._client, self._scorer = engine, prompts, tool_client, scorer
        self._config, self._episode, self._seed = config, episode, seed
        if config.prompts_per_step % jax.process_count():
            raise ConfigError(
                f"grpo.prompts_per_step is {config.prompts_per_step}, which {jax.process_count()} processes cannot share "
                "evenly: change it"
            )
        self._share = config.prompts_per_step // jax.process_count()

    async def roll_out(self, taken: int) -> Rollouts:
        """One step's rollouts, from this process's prompt number `taken` on."""
        began, config = time.monotonic(), self._config
        trajectories: list[Trajectory] = []
        rows: dict[str, Row] = {}
        images: dict[str, bytes] = {}
        wanted, grouped = self._share, Groups([], 0, 0)
        for _ in range(config.sampling_rounds):
            chosen = self._prompts.take(taken, wanted)
            taken += wanted
            rows |= {row.id: row for _, row in chosen}
            images |= {row.id: read_image(row.image) for _, row in chosen if row.id not in images}
            made = await run_episodes(
                self._engine,
                self._requests(chosen, images),
                self._episode,
                self._client,
                keep_per_group=config.group_size if config.oversample else None,
            )
            await self._scorer.score(made, rows)
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
        return Rollouts(trajectories, rows, images, grouped, taken, time.monotonic() - began)

    async def close(self) -> None:
        """Frees what the scorer holds."""
        await self._scorer.close()

    def _requests(self, chosen: Sequence[tuple[int, Row]], images: Mapping[str, bytes]) -> list[EpisodeRequest]:
        sampling = SamplingParams(temperature=self._config.temperature)
        requests = []
        for place, row in chosen:
            for member in range(self._config.group_size + self._config.oversample):
                number = int(np.random.default_rng([self._seed, place, member]).integers(2**31))
                requests.append(
                    EpisodeRequest(row.id, f"{place}-{row.id}", row.question, images[row.id], number, sampling)
                )
        return requests


def _save_some(rollouts: Rollouts, config: GRPOConfig, workdir: Path, step: int) -> None:
    """The trajectories of the first groups, for people to look at."""
    names = list(dict.fromkeys(t.group_id for t in rollouts.trajectories))[: config.save_groups]
    suffix = f".{jax.process_index()}" if jax.process_count() > 1 else ""
    shown = [t for t in rollouts.trajectories if t.group_id in names]
    write_jsonl(shown, workdir / "rollouts" / f"{step:05d}{suffix}.jsonl")
