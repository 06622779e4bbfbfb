"""Evaluation inside training: the running policy plays held-out rows at intervals, through the training's own engine and tools.

It changes nothing in the training: sampling keys depend on each request alone.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.usable import shown_image
from mmsearch_jax.learners.checkpoints import Best, Checkpoints
from mmsearch_jax.learners.groups import every_episode_failed, held_out_metrics
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.train_state import make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.settings.learning import GRPOConfig

METRIC = "eval_accuracy"
"""The metric by which the best checkpoint is kept."""
BEST = Best(METRIC, largest=True)


def split_rows(rows: Sequence[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """`count` rows that the seed chooses, and the others, both in the order of `rows`.

    Raises:
      DataError: there are not more rows than that.
    """
    if count >= len(rows):
        raise DataError(
            f"grpo.eval_num_rows is {count}, but there are {len(rows)} prompts: lower it, or name other rows as grpo.eval_rows"
        )
    chosen = set(np.random.default_rng([seed, count]).permutation(len(rows))[:count].tolist())
    return [rows[i] for i in sorted(chosen)], [row for i, row in enumerate(rows) if i not in chosen]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """When to evaluate, and on which rows.

    Attributes:
      rows: of all processes; each process plays a share.
      every: steps between evaluations; there is also one before the first step and one after the last.
      temperature: 0 is greedy.
    """

    rows: Sequence[Row]
    every: int
    temperature: float
    seed: int

    def due(self, step: int, num_steps: int) -> bool:
        """Whether the policy is evaluated after `step` updates."""
        return step % self.every == 0 or step == num_steps

    async def measure(self, environment: Any) -> dict[str, Any]:
        """Metrics of the policy whose weights the engine has (a collective: every process must call it).

        Args:
          environment: a `grpo.Environment`.

        Raises:
          ToolUnavailable: every episode failed because the tools were unavailable.
        """
        began = time.monotonic()
        own = list(self.rows)[jax.process_index() :: jax.process_count()]
        sampling = SamplingParams(temperature=self.temperature)
        requests = [
            EpisodeRequest(row.id, f"eval-{row.id}", row.question, shown_image(row), self.seed, sampling) for row in own
        ]
        made = await run_episodes(environment.engine, requests, environment.rules, environment.tools)
        by_id = {row.id: row for row in own}
        await environment.scorer.score(made, by_id)
        if every_episode_failed(made):
            await environment.tools.wait_ready(environment.ready_timeout_s)
        return held_out_metrics(made, by_id) | {"eval_seconds": time.monotonic() - began}


def in_words(step: int, metrics: Mapping[str, Any]) -> str:
    """An evaluation as a line for people."""
    if METRIC not in metrics:
        return f"step {step}: none of the {metrics['eval_dropped']} held-out episodes could be scored"
    return (
        f"step {step}: {100 * metrics[METRIC]:.1f} % of {metrics['eval_rows']} held-out rows right, "
        f"{100 * metrics['eval_search_rate']:.1f} % searched"
    )


def best_policy(
    model: Qwen2_5_VL, config: GRPOConfig, place: RunPlace, mesh: LearnerMesh
) -> tuple[Qwen2_5_VL, int, float] | None:
    """The policy of the best evaluation, its step and its accuracy; None if no evaluation has a checkpoint.

    Args:
      model: what the run started from.
    """
    graph, reference, frozen = split_model(model, config.freeze)
    optimizer = make_optimizer(config.optimizer, config.num_steps * config.updates_per_batch * config.epochs)
    with Checkpoints(place.checkpoints, place.config.keep, BEST) as checkpoints:
        best = checkpoints.best
        if best is None:
            return None
        state, _ = checkpoints.restore(mesh.train_state(reference, frozen, optimizer), best[0])
    return nnx.merge(graph, state.frozen, state.params), *best


def save_best(folder: Path, step: int, accuracy: float) -> None:
    """Records which evaluation an exported policy is from, in `best.json` next to it."""
    if jax.process_index() == 0:
        (folder / "best.json").write_text(json.dumps({"step": step, METRIC: accuracy}) + "\n", encoding="utf-8")
