"""`mmsearch grpo`: reinforcement learning with live search."""

from __future__ import annotations

from pathlib import Path

from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.jobs.policies import identity_of, make_engine, save_trained, trainable_policy
from mmsearch_jax.jobs.search_tools import search_server, tool_client
from mmsearch_jax.jobs.worlds import TRAINING_WORLD, prepare_world
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.settings.commands import GRPOSettings


def run_grpo(settings: GRPOSettings, workdir: Path) -> Path:
    """Trains the policy and returns the folder of the result.

    Raises:
      ConfigError: the batch cannot be split over the mesh.
      DataError: there are no prompts.
      ToolUnavailable: no search server answers.
    """
    recipe, mesh = settings.grpo, LearnerMesh.of(settings.mesh, settings.sharding_rules)
    mesh.check(recipe.batch, "grpo.batch")
    scorer = Scorer(recipe.reward, recipe.judge, settings.episode.max_trajectory_tokens)
    policy = trainable_policy(settings, mesh)
    world = Path() if recipe.rows else prepare_world(settings, workdir, TRAINING_WORLD)
    rows = read_rows(recipe.rows or world / "grpo")
    kept = ("batch", "freeze", "loss", "group_size", "prompts_per_step")
    with search_server(settings.tools, world) as url:
        environment = grpo.Environment(
            make_engine(settings, policy), tool_client(settings.tools, url), settings.episode, scorer
        )
        place = RunPlace(workdir, "grpo", settings.run, identity_of(settings, recipe, "grpo", kept))
        trained = grpo.train(policy.model, rows, recipe, environment, place, mesh=mesh, seed=settings.seed)
    return save_trained(trained, workdir / "policies" / "grpo", policy, settings.lora.merge_dtype)
