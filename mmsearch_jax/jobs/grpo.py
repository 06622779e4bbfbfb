"""`mmsearch grpo`: reinforcement learning with live search."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.usable import Use, learnable_episodes, why_all_unusable
from mmsearch_jax.jobs.policies import make_engine, run_place, save_trained, trainable_policy
from mmsearch_jax.jobs.search_tools import search_server, tool_client
from mmsearch_jax.jobs.worlds import TRAINING_WORLD, prepare_world
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.held_out import HeldOut, best_policy, save_best, split_rows
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.prompts import judge_prompts, read_prompts
from mmsearch_jax.learners.training_run import saved_position
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.settings.commands import GRPOSettings
from mmsearch_jax.settings.learning import TOY_WORLD


def run_grpo(settings: GRPOSettings, workdir: Path) -> Path:
    """Trains the policy and returns the folder of the result.

    Raises:
      ConfigError: the batch cannot be split over the mesh.
      DataError: there are no prompts, too few to hold some out, two have the same id, or too many are unusable.
      ToolUnavailable: no search server answers.
    """
    recipe, mesh = settings.grpo, LearnerMesh.of(settings.mesh, settings.sharding_rules, whole_rows=False)
    mesh.check(recipe.batch, "grpo.batch")
    place = run_place(workdir, settings, "grpo")
    # Refuses a work directory of another run before the world in it is replaced.
    saved_position(place)
    scorer = Scorer(recipe.reward, recipe.judge, settings.episode.max_trajectory_tokens)
    # Before the policy is loaded, which may take minutes.
    toy = recipe.rows == TOY_WORLD
    world = prepare_world(settings, workdir, TRAINING_WORLD) if toy else Path()
    found = read_prompts(world / "grpo" if toy else recipe.rows)
    rows, chosen = _split(settings, found.rows)
    policy = trainable_policy(settings, mesh)
    use = learnable_episodes(policy.image_processor, ChatRenderer(policy.tokenizer), settings.episode, recipe.batch)
    aside = judge_prompts(found, use, workdir, recipe.max_unusable)
    if aside.told():
        print(aside.told(), file=sys.stderr)
    held_out = _held_out(settings, chosen, use) if recipe.eval_every else None
    with search_server(settings.tools, world) as url:
        environment = grpo.Environment(
            make_engine(settings, policy), tool_client(settings.tools, url), settings.episode, scorer
        )
        place = dataclasses.replace(place, identity={**place.identity, "grpo.prompts": len(rows)})
        trained = grpo.train(
            policy.model,
            rows,
            recipe,
            environment,
            place,
            mesh=mesh,
            seed=settings.seed,
            aside=aside,
            held_out=held_out,
        )
    folder = save_trained(trained, workdir / "policies" / "grpo", policy, settings.lora.merge_dtype)
    # Frees the engines and the trained weights: restoring the best ones needs memory.
    del environment, trained
    if held_out is not None and (best := best_policy(policy.model, recipe, place, mesh)) is not None:
        model, step, accuracy = best
        best_folder = save_trained(model, workdir / "policies" / "best", policy, settings.lora.merge_dtype)
        save_best(best_folder, step, accuracy)
    return folder


def _split(settings: GRPOSettings, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The prompts to train on, and the rows on which the running policy is evaluated (none if it is not)."""
    recipe = settings.grpo
    if not recipe.eval_every:
        return rows, []
    if not recipe.eval_rows:
        chosen, others = split_rows(rows, recipe.eval_num_rows, settings.seed)
        return others, chosen
    chosen = read_prompts(recipe.eval_rows).rows
    if recipe.eval_num_rows < len(chosen):
        chosen, _ = split_rows(chosen, recipe.eval_num_rows, settings.seed)
    return rows, chosen


def _held_out(settings: GRPOSettings, chosen: list[Row], use: Use) -> HeldOut:
    """When to evaluate, and on which of the chosen rows: those that an episode can play.

    Raises:
      DataError: there is none.
    """
    reasons = why_all_unusable(chosen, use, decode=lambda row: True)
    playable = [row for row, why in zip(chosen, reasons, strict=True) if why is None]
    if not playable:
        raise DataError(f"no held-out row can be played; the first: {reasons[0]}. Name other rows as grpo.eval_rows")
    recipe = settings.grpo
    return HeldOut(playable, recipe.eval_every, recipe.eval_temperature, settings.seed)
