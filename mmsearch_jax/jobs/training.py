"""The stages that train, each from a config and a work folder: pretraining of the tiny base, SFT, GRPO with live search.

Each is what one command does. Below this module functions take arguments, not configs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from mmsearch_jax.core.config_files import as_arguments
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.data.batches import BatchShape, TokenBatch
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.pipeline import Pipeline, PipelineConfig, Step
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.data.storage import read_rows, write_rows
from mmsearch_jax.distributed.mesh import MeshConfig
from mmsearch_jax.distributed.processes import first_process_first
from mmsearch_jax.jobs import parts as stages
from mmsearch_jax.learners import grpo, supervised
from mmsearch_jax.learners.losses import GRPOLossConfig
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.train_state import OptimizerConfig
from mmsearch_jax.learners.training_run import RunConfig
from mmsearch_jax.miniworld import lessons, pretraining
from mmsearch_jax.models.adapters import save_adapter
from mmsearch_jax.models.config import TextConfig, VisionConfig
from mmsearch_jax.models.lora import LoRAConfig, add_lora, lora_layers, merge_lora
from mmsearch_jax.models.policies import Policy, save_policy
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rewards.compose import RewardConfig, Scorer
from mmsearch_jax.rewards.judge import JudgeConfig

_GRPO_KEYS = (
    "num_steps",
    "prompts_per_step",
    "group_size",
    "oversample",
    "sampling_rounds",
    "updates_per_batch",
    "epochs",
    "overlap",
    "temperature",
    "normalise_std",
    "min_group",
    "skip_uniform",
    "save_groups",
)


def run_sft(config: ml_collections.ConfigDict, workdir: Path) -> Path:
    """Supervised fine-tuning; returns the trained policy's folder.

    Raises:
      ConfigError: the batch cannot be split over the mesh, or `sft.data` does not fit the processes.
      DataError: a set is missing or empty.
    """
    settings, mesh = config.sft, LearnerMesh.of(MeshConfig(**config.mesh), config.sharding_rules)
    shape = BatchShape(**settings.batch)
    mesh.check(shape, "sft.batch")
    policy = _trainable(config, mesh)
    sets = tuple(settings.data.sets) or (_conversations(config, workdir, policy),)
    trained = supervised.train(
        policy.model,
        _steps(config, policy, sets, settings.data.weights),
        settings.num_steps,
        OptimizerConfig(**settings.optimizer),
        workdir,
        "sft",
        config=RunConfig(**config.run),
        mesh=mesh,
        seed=config.seed,
        freeze=tuple(settings.freeze),
        accumulate=settings.accumulate,
        validation=_validation(config, policy),
        validate_every=settings.data.validate_every,
        identity=_identity(config, "sft", ("batch", "freeze", "accumulate")),
    )
    return _save(trained, workdir / "policies" / "sft", policy)


def run_grpo(config: ml_collections.ConfigDict, workdir: Path) -> Path:
    """GRPO with live search; returns the trained policy's folder.

    Raises:
      ConfigError: the batch cannot be split over the mesh, or rows of one's own are given without a search server.
    """
    settings, mesh = config.grpo, LearnerMesh.of(MeshConfig(**config.mesh), config.sharding_rules)
    shape = BatchShape(**settings.batch)
    mesh.check(shape, "grpo.batch")
    if settings.rows and not config.tools.url:
        raise ConfigError(
            "grpo.rows names rows of your own: name the server that searches for them, too (--config.tools.url)"
        )
    recipe = grpo.GRPOConfig(
        **{key: settings[key] for key in _GRPO_KEYS},
        loss=GRPOLossConfig(**settings.loss),
        reward=RewardConfig(**settings.reward),
    )
    scorer = Scorer(recipe.reward, JudgeConfig(**settings.judge), config.episode.max_trajectory_tokens)
    policy = _trainable(config, mesh)
    world = Path()
    if not settings.rows:
        with first_process_first():
            world = stages.prepare_world(config, workdir, stages.TRAINING_WORLD)
    rows = read_rows(settings.rows or world / "grpo")
    with stages.tools(config, world) as url:
        trained = grpo.train(
            policy.model,
            stages.make_engine(config, policy),
            rows,
            stages.tool_client(config, url),
            recipe,
            stages.episode_config(config),
            shape,
            OptimizerConfig(**settings.optimizer),
            workdir,
            scorer=scorer,
            run_config=RunConfig(**config.run),
            mesh=mesh,
            seed=config.seed,
            freeze=tuple(settings.freeze),
            identity=_identity(config, "grpo", ("batch", "freeze", "loss", "group_size", "prompts_per_step")),
        )
    return _save(trained, workdir / "policies" / "grpo", policy)


def run_pretrain(config: ml_collections.ConfigDict, workdir: Path) -> Path:
    """Makes the tiny base; returns its folder."""
    out = Path(config.out)
    pretraining.make_base(
        out,
        workdir,
        text=TextConfig(**as_arguments(config.text)),
        vision=VisionConfig(**as_arguments(config.vision)),
        max_pixels=config.max_pixels,
        shape=BatchShape(**config.batch),
        courses=[_course(course) for _, course in sorted(config.courses.items())],
        num_scenes=config.num_scenes,
        world_size=config.world_size,
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
    )
    return out


def _course(config: ml_collections.ConfigDict) -> pretraining.Course:
    parts = [pretraining.Part(part.steps, lessons.Mixture(**part.mixture)) for _, part in sorted(config.parts.items())]
    return pretraining.Course(parts, OptimizerConfig(**config.optimizer))


def _conversations(config: ml_collections.ConfigDict, workdir: Path, policy: Policy) -> str:
    """The mini-world's conversations in the training format; made once per world."""
    with first_process_first():
        world = stages.prepare_world(config, workdir, stages.TRAINING_WORLD)
        out = world / "conversations" / "rows.array_record"
        if not out.is_file():
            with stages.tools(config, world) as url:
                rows = stages.run_conversations(config, workdir, url, policy)
            write_rows(read_rows(rows), out)
    return str(out)


def _steps(
    config: ml_collections.ConfigDict, policy: Policy, sets: Sequence[str], weights: Sequence[float]
) -> Callable[[int, Any], Iterator[Step]]:
    pipeline = _pipeline(config, policy, sets, tuple(weights) or None)

    def steps(start: int, position: Any) -> Iterator[Step]:
        assert position is not None or start == 0
        return pipeline.steps(position)

    return steps


def _pipeline(
    config: ml_collections.ConfigDict, policy: Policy, sets: Sequence[str], weights: tuple[float, ...] | None
) -> Pipeline:
    settings = config.sft.data
    return Pipeline(
        sets,
        PipelineConfig(
            BatchShape(**config.sft.batch),
            config.seed,
            settings.lanes,
            weights,
            config.episode.prompt_style,
            num_workers=settings.num_workers,
        ),
        SequenceBuilder(ChatRenderer(policy.tokenizer), policy.model.config),
        policy.image_processor,
        jax.process_index(),
        jax.process_count(),
    )


def _validation(config: ml_collections.ConfigDict, policy: Policy) -> list[TokenBatch]:
    settings = config.sft.data
    if not settings.validation:
        return []
    steps = _pipeline(config, policy, tuple(settings.validation), None).steps()
    return [step.batch for step in itertools.islice(steps, settings.validation_batches)]


def _identity(config: ml_collections.ConfigDict, stage: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """What a run's numbers depend on, and what must not change when it is resumed."""
    record = config.to_dict()
    chosen = {key: record[key] for key in ("checkpoint", "seed", "lora")}
    chosen |= {f"{stage}.{key}": record[stage][key] for key in ("optimizer", *keys)}
    # Tuples come back from a checkpoint as lists.
    return json.loads(json.dumps(chosen))


def _trainable(config: ml_collections.ConfigDict, mesh: LearnerMesh) -> Policy:
    """The policy as it is trained: on the mesh, with LoRA where the config asks for it, and its remat policy."""
    lora = LoRAConfig(**as_arguments(config.lora))
    # Updates are float32 in any case; a base that is not trained need not be.
    param_dtype = None if lora.rank else np.float32
    policy = stages.policy_of(config, param_dtype, mesh.parameters)
    model = add_lora(policy.model, lora, config.seed) if lora.rank else policy.model
    model.set_remat(config.remat)
    return dataclasses.replace(policy, model=model)


def _save(trained: Qwen2_5_VL, folder: Path, policy: Policy) -> Path:
    """Writes the policy, LoRA merged, and the adapter alone beside it; of several processes the first does."""
    if jax.process_count() > 1:
        trained = in_host_memory(trained)
    with first_process_first():
        if jax.process_index() == 0:
            if lora_layers(trained):
                save_adapter(trained, folder / "adapter", str(policy.folder))
                trained = merge_lora(trained)
            save_policy(trained, folder, policy.folder)
    return folder


def in_host_memory(model: Qwen2_5_VL) -> Qwen2_5_VL:
    """The model with every parameter whole, as a NumPy array: one chip need not have room for what a mesh holds.

    Of several processes all must call this together.
    """
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), state))
