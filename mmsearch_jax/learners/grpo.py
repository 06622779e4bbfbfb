"""Group relative policy optimisation with live search.

Each step: take prompts, roll each out G times with the live tools, score, compare within the groups, and update the
policy on the very tokens that were sampled. It differs from textbook GRPO in this: advantages are not divided by the
group's standard deviation unless asked (DeepMMSearch-R1, sec. 3.2), observation tokens never receive loss, and episodes
that broke through no fault of the policy are left out of their group instead of being scored 0.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmsearch_jax.data.batches import BatchShape, TokenBatch, TrainingSequence, pack
from mmsearch_jax.data.image_processing import ProcessedImage
from mmsearch_jax.data.schema import Row, read_image
from mmsearch_jax.errors import ConfigError
from mmsearch_jax.learners.advantages import group_advantages
from mmsearch_jax.learners.checkpoints import Checkpoints
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.losses import GRPOLossConfig, grpo_loss
from mmsearch_jax.learners.metrics import RunLog
from mmsearch_jax.learners.train_state import (
    OptimizerConfig,
    TrainState,
    apply_gradients,
    create_train_state,
    jit_update,
    make_optimizer,
    split_model,
)
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rewards.compose import RewardConfig, reward
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.trajectory import Trajectory, write_jsonl


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
    """What a run of GRPO is made of.

    Attributes:
      num_steps: rollout batches.
      prompts_per_step, group_size: each step samples `prompts_per_step` x `group_size` trajectories.
      updates_per_batch: optimiser updates on one rollout batch (mini-batches are not reused).
      temperature: of sampling, and of the log-probs in the loss: what is optimised is the policy as it is sampled. Below 1
        the trajectories fail less by mere chance, and the rewards tell more about what greedy decoding gets wrong.
      normalise_std: see `learners.advantages`.
      min_group: groups with fewer sound trajectories are dropped (and counted).
      skip_uniform: leave out groups whose rewards are all equal: they have no gradient but for the KL's.
    """

    num_steps: int = 30
    prompts_per_step: int = 8
    group_size: int = 8
    updates_per_batch: int = 1
    temperature: float = 1.0
    normalise_std: bool = False
    min_group: int = 2
    skip_uniform: bool = True
    loss: GRPOLossConfig = GRPOLossConfig()
    reward: RewardConfig = RewardConfig()

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(
                f"grpo.temperature is {self.temperature:g}, must be above 0: greedy trajectories of a group are all alike"
            )


@dataclasses.dataclass(frozen=True)
class Learner:
    """The jitted pieces, on packed batches.

    Attributes:
      accumulate: (state, total, batch) -> (total with the batch's weighted gradients, metrics).
      apply: (state, total, weight) -> (updated state, metrics); `weight` is the sum of the batches' "weight" metrics.
      score: (params, frozen, batch) -> log-probs [B, L].
    """

    graph: Any
    accumulate: Callable[[TrainState, Any, TokenBatch], tuple[Any, dict[str, jax.Array]]]
    apply: Callable[[TrainState, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]
    score: Callable[[Any, Any, TokenBatch], jax.Array]


def make_learner(graph: Any, optimizer: Any, config: GRPOLossConfig, temperature: float = 1.0) -> Learner:
    """Builds the gradients, the update and the scoring of reference log-probs; what they replace is donated."""

    def loss(params: Any, frozen: Any, batch: TokenBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        scored = token_logprobs(nnx.merge(graph, frozen, params), batch, temperature)
        mask = jnp.asarray(batch.loss_weights) > 0
        value, metrics = grpo_loss(
            scored.logprobs, batch.extras["rollout_logprobs"], batch.extras["ref_logprobs"], batch.extras["advantages"],
            mask, batch.extras["sequence_weights"], config,
        )  # fmt: skip
        entropy = jnp.where(mask, scored.entropy, 0.0).sum() / jnp.maximum(mask.sum(), 1)
        return value, {"loss": value, "entropy": entropy, **metrics}

    def accumulate(state: TrainState, total: Any, batch: TokenBatch) -> tuple[Any, dict[str, jax.Array]]:
        (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, state.frozen, batch)
        return jax.tree.map(lambda t, g: t + metrics["weight"] * g, total, gradients), metrics

    def apply(state: TrainState, total: Any, weight: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        return apply_gradients(state, jax.tree.map(lambda t: t / weight, total), optimizer)

    def score(params: Any, frozen: Any, batch: TokenBatch) -> jax.Array:
        return token_logprobs(nnx.merge(graph, frozen, params), batch, temperature).logprobs

    return Learner(graph, jax.jit(accumulate, donate_argnums=1), jit_update(apply), jax.jit(score))


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
    seed: int = 0,
    freeze: tuple[str, ...] = ("vision",),
    checkpoint_every: int = 0,
    resume: bool = True,
    ready_timeout_s: float = 60.0,
    show_progress: bool = True,
) -> Qwen2_5_VL:
    """Trains the policy against the live tools and returns it; the given model is the frozen reference.

    Args:
      engine: samples; its weights are replaced after every step.
      rows: prompts with gold answers; visited in an order that follows from `seed`, again and again.
      shape: of a learner's batch; a rollout batch is split over as many as it needs.
      freeze: top-level modules that are not trained; with "vision" the reference shares it and features stay cached.
      ready_timeout_s: how long the search server may be away once every trajectory of a step failed for lack of it.

    Raises:
      ToolUnavailable: every trajectory of a step failed for lack of the tools.
    """
    graph, reference, frozen = split_model(model, freeze)
    transformation = make_optimizer(optimizer, config.num_steps * config.updates_per_batch)
    state = create_train_state(reference, frozen, transformation)
    learner = make_learner(graph, transformation, config.loss, config.temperature)

    async def loop() -> TrainState:
        nonlocal state
        with Checkpoints(Path(workdir) / "checkpoints" / "grpo") as checkpoints:
            if resume and checkpoints.latest_step is not None:
                state, _ = checkpoints.restore(state)
            start = (checkpoints.latest_step or 0) if resume else 0
            with RunLog(workdir, "grpo", config.num_steps, start, show_progress) as log:
                for step in range(start, config.num_steps):
                    began = time.monotonic()
                    _sync(engine, learner.graph, state, step, "vision" in freeze)
                    chosen = rows_of_step(rows, step, config.prompts_per_step, seed)
                    images = {row.id: read_image(row.image) for row in chosen}
                    requests = _requests(chosen, images, step, config, seed)
                    trajectories = await run_episodes(engine, requests, episode, tool_client)
                    rolled = time.monotonic()
                    by_id = {row.id: row for row in chosen}
                    kept, metrics = score_groups(trajectories, by_id, config)
                    if not kept and metrics["dropped"] == len(trajectories):
                        await tool_client.wait_ready(ready_timeout_s)
                    state, more = _learn(state, learner, reference, kept, images, engine, shape, config)
                    ended = time.monotonic()
                    sampled = sum(trajectory.num_sampled for trajectory in trajectories)
                    metrics |= more | {
                        "rollout_seconds": rolled - began, "learn_seconds": ended - rolled,
                        "tokens_per_second": sampled / (rolled - began),
                    }  # fmt: skip
                    log.write(step + 1, metrics, shown=("reward", "accuracy", "searches", "kl", "tokens_per_second"))
                    write_jsonl(trajectories[: config.group_size], Path(workdir) / "rollouts" / f"{step + 1:05d}.jsonl")
                    if step + 1 == config.num_steps or (checkpoint_every and (step + 1) % checkpoint_every == 0):
                        checkpoints.save(step + 1, state)
        await tool_client.close()
        return state

    final = asyncio.run(loop())
    return nnx.merge(graph, final.frozen, final.params)


def rows_of_step(rows: Sequence[Row], step: int, count: int, seed: int) -> list[Row]:
    """The rows of one step: a fresh permutation each time that all rows were used, whatever step one starts from."""
    chosen = []
    for index in range(step * count, (step + 1) * count):
        epoch, place = divmod(index, len(rows))
        chosen.append(rows[int(np.random.default_rng([seed, epoch]).permutation(len(rows))[place])])
    return chosen


def score_groups(
    trajectories: Sequence[Trajectory], rows: dict[str, Row], config: GRPOConfig
) -> tuple[list[tuple[Trajectory, float]], dict[str, Any]]:
    """Rewards every sound trajectory in place, and pairs those that will be learnt from with their advantage."""
    sound = [trajectory for trajectory in trajectories if not trajectory.infrastructure_failure]
    for trajectory in sound:
        trajectory.reward, trajectory.reward_parts = reward(trajectory, rows[trajectory.row_id].answers, config.reward)
    groups: dict[str, list[Trajectory]] = collections.defaultdict(list)
    for trajectory in sound:
        groups[trajectory.group_id].append(trajectory)
    whole = {name: members for name, members in groups.items() if len(members) >= config.min_group}
    uniform = {name for name, members in whole.items() if len({member.reward for member in members}) == 1}
    used = [t for name, members in whole.items() for t in members if not (config.skip_uniform and name in uniform)]
    advantages = group_advantages([t.reward or 0.0 for t in used], [t.group_id for t in used], config.normalise_std)
    return list(zip(used, map(float, advantages), strict=True)), _rollout_metrics(
        trajectories, sound, rows, len(uniform)
    )


def training_sequence(
    trajectory: Trajectory, advantage: float, image: ProcessedImage, model: ModelConfig
) -> TrainingSequence:
    """The trajectory as the learner reads it: the sampler's ids, positions and log-probs, nothing encoded again."""
    positions, _ = mrope_positions(trajectory.token_ids, trajectory.image_grids, model)
    mask = np.asarray(trajectory.loss_mask, np.float32)
    length = len(mask)
    extras = {
        "rollout_logprobs": np.asarray(trajectory.logprobs, np.float32),
        "advantages": np.full(length, advantage, np.float32),
        "sequence_weights": np.full(length, 1.0 / max(1.0, float(mask.sum())), np.float32),
        "ref_logprobs": np.zeros(length, np.float32),
    }
    ids = np.asarray(trajectory.token_ids, np.int32)
    return TrainingSequence(ids, positions, mask, [image], model.image_token_id, extras)


def _learn(
    state: TrainState,
    learner: Learner,
    reference: Any,
    kept: Sequence[tuple[Trajectory, float]],
    images: Mapping[str, bytes],
    engine: Engine,
    shape: BatchShape,
    config: GRPOConfig,
) -> tuple[TrainState, dict[str, float]]:
    if not kept:
        return state, {"updates": 0}
    sequences = [
        training_sequence(t, a, engine.prepare_image(images[t.row_id]).processed, engine.model_config) for t, a in kept
    ]
    share = -(-len(sequences) // config.updates_per_batch)
    records: list[dict[str, float]] = []
    for begin in range(0, len(sequences), share):
        # One update, however many batches its sequences fill.
        total, weight = jax.tree.map(jnp.zeros_like, state.params), 0.0
        parts: list[dict[str, float]] = []
        waiting = sequences[begin : begin + share]
        while waiting:
            packed, left = pack(waiting, shape)
            scored = learner.score(reference, state.frozen, packed.batch)
            batch = packed.batch._replace(extras={**packed.batch.extras, "ref_logprobs": scored})
            total, metrics = learner.accumulate(state, total, batch)
            parts.append({name: float(value) for name, value in jax.device_get(metrics).items()})
            weight += parts[-1]["weight"]
            waiting = [waiting[i] for i in left]
        state, applied = learner.apply(state, total, jnp.float32(weight))
        applied = {name: float(value) for name, value in jax.device_get(applied).items()}
        records += [{**part, **applied} for part in parts]
    means = {
        name: float(np.average([r[name] for r in records], weights=[r["weight"] for r in records]))
        for name in records[0]
        if name != "weight"
    }
    means["max_ratio"] = max(record["max_ratio"] for record in records)
    return state, means | {"updates": -(-len(sequences) // share)}


def _sync(engine: Engine, graph: Any, state: TrainState, version: int, vision_frozen: bool) -> None:
    """Gives the engine a copy of the weights: the learner's own buffers are donated at the next update."""
    model = nnx.merge(graph, state.frozen, jax.tree.map(jnp.copy, state.params))
    engine.set_weights(nnx.split(model)[1], version, keep_image_features=vision_frozen)


def _requests(
    rows: Sequence[Row], images: Mapping[str, bytes], step: int, config: GRPOConfig, seed: int
) -> list[EpisodeRequest]:
    sampling = SamplingParams(temperature=config.temperature)
    requests = []
    for place, row in enumerate(rows):
        for member in range(config.group_size):
            number = int(np.random.default_rng([seed, step, place, member]).integers(2**31))
            group = f"{step}-{place}-{row.id}"
            requests.append(EpisodeRequest(row.id, group, row.question, images[row.id], number, sampling))
    return requests


def _rollout_metrics(
    trajectories: Sequence[Trajectory], sound: Sequence[Trajectory], rows: dict[str, Row], uniform: int
) -> dict[str, Any]:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    free = [t for t in sound if not rows[t.row_id].search_required]
    statuses = collections.Counter(t.status for t in trajectories)
    calls = [t.tool_calls() for t in sound]
    return {
        "reward": mean([t.reward or 0.0 for t in sound]),
        "accuracy": mean([t.reward_parts["match"] for t in sound]),
        "format": mean([t.reward_parts["format"] for t in sound]),
        "searches": mean([len(c) for c in calls]),
        "text_searches": mean([sum(r.tool == "text_search" for r in c) for c in calls]),
        "whole_image_searches": mean([sum(r.tool == "image_search" and r.query is None for r in c) for c in calls]),
        "crop_searches": mean([sum(r.tool == "image_search" and r.query is not None for r in c) for c in calls]),
        "needless_searches": mean([float(bool(t.tool_calls())) for t in free]),
        "turns": mean([len(t.turns) for t in sound]),
        "sampled_tokens": mean([t.num_sampled for t in sound]),
        "tokens": mean([len(t.token_ids) for t in sound]),
        "dropped": len(trajectories) - len(sound),
        "uniform_groups": uniform,
        **{f"status_{name}": count for name, count in statuses.items()},
    }
