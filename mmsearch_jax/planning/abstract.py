"""Abstract states and batches of a config's job: shapes with the shardings that the arrays will have, without memory.

They equal what the learners and jobs build from the same config, except that they have no values.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.distributed.mesh import AXES, mesh_sizes
from mmsearch_jax.distributed.sharding import rules_of
from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.images.vision_inputs import VisionInputs
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.train_state import TrainState, make_optimizer, split_model
from mmsearch_jax.models.config import ModelConfig, VisionConfig
from mmsearch_jax.models.lora import add_lora
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.planning.devices import devices_of
from mmsearch_jax.settings.commands import LearnerSettings
from mmsearch_jax.settings.learning import BatchShape, GRPOConfig, SFTConfig
from mmsearch_jax.settings.policy import LoRAConfig


@dataclasses.dataclass(frozen=True)
class Learner:
    """Everything that a learner's programs are built from: mesh, graph, abstract train state, optimiser, batch. `half`: it
    computes in 16 bits."""

    mesh: LearnerMesh
    graph: Any
    state: TrainState
    optimizer: Any
    shape: BatchShape
    model: ModelConfig
    full: bool
    remat: str
    half: bool


def abstract_model(model: ModelConfig, config: LearnerSettings, *, trained: bool) -> Qwen2_5_VL:
    """The policy of a stage: the learner's with LoRA and remat, or the sampler's plain one."""
    lora = config.lora if config.lora.rank else None
    dtype = jnp.dtype(config.dtype)
    # Parameters that LoRA does not train keep the checkpoint's dtype; trained ones are float32.
    made = _shapes(model, lora if trained else None, dtype, dtype if lora else jnp.dtype(np.float32))
    made.set_remat(config.remat)
    return made


@functools.lru_cache(maxsize=8)
def _shapes(model: ModelConfig, lora: LoRAConfig | None, dtype: Any, stored: Any) -> Qwen2_5_VL:
    def make() -> Qwen2_5_VL:
        plain = Qwen2_5_VL(model, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=stored)
        return add_lora(plain, lora) if lora else plain

    return nnx.eval_shape(make)


def stage_of(config: LearnerSettings, stage: str) -> SFTConfig | GRPOConfig:
    """The config's section for "sft" or "grpo".

    Raises:
      ConfigError: the config has no such stage.
    """
    section = getattr(config, stage, None)
    if section is None:
        raise ConfigError(
            f"the config has no section '{stage}': give a config of that stage, or leave it out of --programs"
        )
    return section


def learner(
    config: LearnerSettings, stage: str, model: ModelConfig, mesh: LearnerMesh, num_updates: int = 1
) -> Learner:
    """The learner of the stage "sft" or "grpo".

    Raises:
      ConfigError: the mesh does not divide the batch.
    """
    recipe = stage_of(config, stage)
    shape = recipe.batch
    mesh.check(shape, f"{stage}.batch")
    graph, trained, frozen = split_model(abstract_model(model, config, trained=True), recipe.freeze)
    optimizer = make_optimizer(recipe.optimizer, num_updates)
    state = mesh.abstract_train_state(trained, frozen, optimizer)
    half = jnp.dtype(config.dtype).itemsize == 2
    return Learner(mesh, graph, state, optimizer, shape, model, not config.lora.rank, config.remat, half)


def mesh_on(config: LearnerSettings, topology: Topology, stage: str) -> LearnerMesh:
    """The config's mesh over the slice's devices, built as for training in the stage "sft" or "grpo".

    Raises:
      ConfigError: its sizes do not make up the number of devices, or SFT's rows would lie on several hosts.
    """
    return LearnerMesh.of(config.mesh, config.sharding_rules, devices_of(topology), whole_rows=stage == "sft")


def mesh_without_devices(config: LearnerSettings, topology: Topology) -> LearnerMesh:
    """A mesh of the same shape for formulas only: nothing can be compiled for it, and it does not need libtpu.

    Raises:
      ConfigError: its sizes do not make up the number of devices.
    """
    sizes = mesh_sizes(config.mesh, topology.num_devices)
    return LearnerMesh(AbstractMesh(sizes, AXES), rules_of(config.sharding_rules))  # type: ignore[arg-type]


def batch_shapes(shape: BatchShape, vision: VisionConfig, extras: tuple[str, ...] = ()) -> TokenBatch:
    """A global batch in the form of `data.batches`, without values."""

    def array(*dims: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype)

    ids = array(shape.rows, shape.length)
    numbers = array(shape.rows, shape.length, dtype=jnp.float32)
    room = (shape.images, shape.patches)
    inputs = None
    if shape.images:
        # Bytes, and one frame of each patch: the tower normalises and adds the other frame.
        patches = array(*room, vision.patch_dim // vision.temporal_patch_size, dtype=jnp.uint8)
        inputs = VisionInputs(patches, array(*room, 2), array(*room), array(*room))
    positions = array(3, shape.rows, shape.length)
    return TokenBatch(ids, positions, ids, numbers, ids, inputs, dict.fromkeys(sorted(extras), numbers))


def bytes_per_chip(tree: Any) -> float:
    """Bytes of an abstract tree's arrays on the chip that holds the most."""
    total = 0.0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
        total += float(np.prod(shape)) * leaf.dtype.itemsize
    return total
