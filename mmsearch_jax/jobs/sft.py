"""`mmsearch sft`: supervised fine-tuning on conversations with search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.pipeline import Pipeline, PipelineConfig, Step, num_lanes
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.jobs.policies import run_place, save_trained, trainable_policy
from mmsearch_jax.jobs.worlds import teacher_conversations
from mmsearch_jax.learners import supervised
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.training_run import RunPlace, saved_position
from mmsearch_jax.models.policies import Policy
from mmsearch_jax.settings.commands import SFTSettings
from mmsearch_jax.settings.learning import TOY_WORLD


def run_sft(settings: SFTSettings, workdir: Path) -> Path:
    """Trains the policy and returns the folder of the result.

    Raises:
      ConfigError: the batch cannot be split over the mesh, or `sft.data` does not fit the processes.
      DataError: a set is missing or empty.
    """
    recipe, mesh = settings.sft, LearnerMesh.of(settings.mesh, settings.sharding_rules)
    mesh.check(recipe.batch, "sft.batch")
    policy = trainable_policy(settings, mesh)
    place = run_place(workdir, settings, "sft")
    # Refuses a work directory of another run before the teacher's conversations in it are replaced.
    lanes = _lanes(settings, place)
    sets = tuple(
        str(teacher_conversations(settings, workdir, policy)) if name == TOY_WORLD else name
        for name in recipe.data.sets
    )
    pipeline = _pipeline(settings, policy, sets, recipe.data.weights, lanes)

    def steps(start: int, position: Any) -> Iterator[Step]:
        assert position is not None or start == 0
        return pipeline.steps(position)

    trained = supervised.train(
        policy.model,
        steps,
        supervised.Updates(recipe.num_steps, recipe.optimizer, recipe.accumulate, recipe.freeze),
        place,
        mesh=mesh,
        seed=settings.seed,
        validation=_validation(settings, policy, lanes),
    )
    return save_trained(trained, workdir / "policies" / "sft", policy, settings.lora.merge_dtype)


def _lanes(settings: SFTSettings, place: RunPlace) -> int:
    """Lanes of the run's data: those of the checkpoint that it resumes from, whatever the number of processes is now."""
    position = saved_position(place)
    if position is not None:
        return int(position["of"]["lanes"])
    return num_lanes(settings.sft.batch, settings.sft.data.lanes, jax.process_count())


def _pipeline(
    settings: SFTSettings, policy: Policy, sets: tuple[str, ...], weights: tuple[float, ...], lanes: int
) -> Pipeline:
    data = settings.sft.data
    return Pipeline(
        sets,
        PipelineConfig(
            settings.sft.batch, settings.seed, lanes, weights or None, settings.episode.prompt_style,
            num_workers=data.num_workers, max_unusable=data.max_unusable,
        ),
        SequenceBuilder(ChatRenderer(policy.tokenizer), policy.model.config, train_end=settings.sft.train_end),
        policy.image_processor,
        jax.process_index(),
        jax.process_count(),
    )  # fmt: skip


def _validation(settings: SFTSettings, policy: Policy, lanes: int) -> supervised.Validation | None:
    data = settings.sft.data
    if not data.validation:
        return None
    steps = _pipeline(settings, policy, data.validation, (), lanes).steps()
    batches = [step.batch for step in itertools.islice(steps, data.validation_batches)]
    return supervised.Validation(batches, data.validate_every)
