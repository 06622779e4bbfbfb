"""The policy that the settings name: loads it, builds an engine with it, prepares it for training, and saves it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from mmsearch_jax.core.protocol import CLOSING_TAGS
from mmsearch_jax.core.settings import plain
from mmsearch_jax.core.staging import shown
from mmsearch_jax.data.chat import TEMPLATE
from mmsearch_jax.distributed.processes import first_process_first
from mmsearch_jax.jobs.identities import training
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.models.adapters import save_adapter
from mmsearch_jax.models.axes import Placement, placement
from mmsearch_jax.models.lora import add_lora, lora_layers, merge_lora
from mmsearch_jax.models.policies import Policy, load_policy, save_policy
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rollout.engine_group import EngineGroup
from mmsearch_jax.rollout.placement import host_mesh
from mmsearch_jax.settings.commands import LearnerSettings, PolicySettings


def named_policy(settings: PolicySettings, param_dtype: Any = np.float32, place: Placement | None = None) -> Policy:
    """The policy at `checkpoint`, which computes in `dtype` and sees images at up to `max_pixels`.

    Args:
      param_dtype: of the parameters; None keeps the stored dtype.
      place: maps each parameter to its sharding; by default over the chips of this host that the engine uses, so that no chip
        needs memory for the whole policy.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be loaded.
    """
    place = place or placement(host_mesh(settings.engine.tensor))
    policy = load_policy(settings.checkpoint, np.dtype(settings.dtype), param_dtype, place)
    if not settings.max_pixels:
        return policy
    # Never exceed the size that the checkpoint was made for.
    max_pixels = min(settings.max_pixels, policy.image_processor.max_pixels)
    return dataclasses.replace(
        policy, image_processor=dataclasses.replace(policy.image_processor, max_pixels=max_pixels)
    )


def make_engine(settings: PolicySettings, policy: Policy) -> EngineGroup:
    """This host's engines with a policy's weights."""
    return EngineGroup(policy.model, policy.tokenizer, policy.image_processor, settings.sized_engine, settings.seed)


def trainable_policy(settings: LearnerSettings, mesh: LearnerMesh) -> Policy:
    """The policy in its form for training: on the mesh, with LoRA if the settings enable it, and with their remat policy."""
    # Updates are always float32; a base that is not trained need not be.
    param_dtype = None if settings.lora.rank else np.float32
    policy = named_policy(settings, param_dtype, mesh.parameters)
    model = add_lora(policy.model, settings.lora, settings.seed) if settings.lora.rank else policy.model
    model.set_remat(settings.remat)
    return dataclasses.replace(policy, model=model)


def run_place(workdir: Path, settings: LearnerSettings, stage: str) -> RunPlace:
    """Where a stage's run is stored, with the settings that identify it and all of them for its log."""
    return RunPlace(workdir, stage, settings.run, training(settings, stage), hyperparameters=plain(settings))


def save_trained(trained: Qwen2_5_VL, folder: Path, policy: Policy, merge_dtype: str = "stored") -> Path:
    """Writes the policy with LoRA merged, and the adapter next to it; only the first process writes.

    Args:
      merge_dtype: see `LoRAConfig`.
    """
    if jax.process_count() > 1:
        trained = in_host_memory(trained)
    with first_process_first():
        if jax.process_index() == 0:
            if lora_layers(trained):
                save_adapter(trained, folder / "adapter", shown(policy.folder))
                trained = merge_lora(trained, np.float32 if merge_dtype == "float32" else None)
            elif (folder / "adapter").exists():
                # Of an earlier run with LoRA, whose policy this one replaces.
                shutil.rmtree(folder / "adapter")
            save_policy(trained, folder, policy.folder, chat_template=TEMPLATE, stop_strings=CLOSING_TAGS)
    return folder


def in_host_memory(model: Qwen2_5_VL) -> Qwen2_5_VL:
    """The model with every parameter whole, as a NumPy array: one chip may lack memory for what a mesh holds.

    All processes must call this together.
    """
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), state))
