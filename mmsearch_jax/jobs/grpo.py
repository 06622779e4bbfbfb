"""`mmsearch grpo`: reinforcement learning with live search."""

from __future__ import annotations

from pathlib import Path

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.jobs.policies import identity_of, make_engine, save_trained, trainable_policy
from mmsearch_jax.jobs.search_tools import search_server, tool_client
from mmsearch_jax.jobs.worlds import TRAINING_WORLD, prepare_world
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.held_out import HeldOut, best_policy, save_best, split_rows
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.settings.commands import GRPOSettings


def run_grpo(settings: GRPOSettings, workdir: Path) -> Path:
    """Trains the policy and returns the folder of the result.

    Raises:
      ConfigError: the batch cannot be split over the mesh.
      DataError: there are no prompts, or too few to hold some out.
      ToolUnavailable: no search server answers.
    """
    recipe, mesh = settings.grpo, LearnerMesh.of(settings.mesh, settings.sharding_rules)
    mesh.check(recipe.batch, "grpo.batch")
    scorer = Scorer(recipe.reward, recipe.judge, settings.episode.max_trajectory_tokens)
    world = Path() if recipe.rows else prepare_world(settings, workdir, TRAINING_WORLD)
    rows, held_out = _with_held_out(settings, read_rows(recipe.rows or world / "grpo"))
    policy = trainable_policy(settings, mesh)
    kept = ("batch", "freeze", "loss", "group_size", "prompts_per_step")
    with search_server(settings.tools, world) as url:
        environment = grpo.Environment(
            make_engine(settings, policy), tool_client(settings.tools, url), settings.episode, scorer
        )
        identity = {**identity_of(settings, recipe, "grpo", kept), "grpo.prompts": len(rows)}
        place = RunPlace(workdir, "grpo", settings.run, identity)
        trained = grpo.train(
            policy.model, rows, recipe, environment, place, mesh=mesh, seed=settings.seed, held_out=held_out
        )
    folder = save_trained(trained, workdir / "policies" / "grpo", policy)
    # Frees the engines and the trained weights: restoring the best ones needs memory.
    del environment, trained
    if held_out is not None and (best := best_policy(policy.model, recipe, place, mesh)) is not None:
        model, step, accuracy = best
        save_best(save_trained(model, workdir / "policies" / "best", policy), step, accuracy)
    return folder


def _with_held_out(settings: GRPOSettings, rows: list[Row]) -> tuple[list[Row], HeldOut | None]:
    """The prompts to train on, and what the running policy is evaluated on."""
    recipe = settings.grpo
    if not recipe.eval_every:
        return rows, None
    count = recipe.eval_num_rows
    if recipe.eval_rows:
        chosen = read_rows(recipe.eval_rows)
        chosen = split_rows(chosen, count, settings.seed)[0] if count < len(chosen) else chosen
        if not chosen:
            raise DataError(f"{recipe.eval_rows} contains no rows: name another file as grpo.eval_rows")
    else:
        chosen, rows = split_rows(rows, count, settings.seed)
    return rows, HeldOut(chosen, recipe.eval_every, recipe.eval_temperature, settings.seed)
