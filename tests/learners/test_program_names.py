"""The names of the device programs, under which profilers list them: the stage and the part of it, as in `mmsearch plan`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.policy_update import PolicyUpdater
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.learners.train_state import JittedUpdate, TrainState, create_train_state
from mmsearch_jax.rollout.jitted import model_functions
from mmsearch_jax.settings.learning import BatchShape, GRPOConfig
from mmsearch_jax.settings.policy import MeshConfig
from mmsearch_jax.settings.rollout import EngineConfig
from tests.models.test_qwen2_5_vl import CONFIG


def test_an_update_s_program_has_the_name_of_the_update():
    def sft_update(state: TrainState, more: Any) -> tuple[TrainState, Any]:
        return state, more + 1

    state = create_train_state({"a": jnp.ones(2)}, {}, optax.sgd(0.1))
    assert JittedUpdate(sft_update).lower(state, jnp.ones(2)).as_text().startswith("module @jit_sft_update ")


def test_the_parts_of_a_stage_have_its_name():
    mesh, optimizer = LearnerMesh.of(MeshConfig()), optax.sgd(0.1)
    sft = SupervisedUpdate(None, optimizer, mesh=mesh)
    assert [part.function.__name__ for part in (sft.at_once, sft.add, sft.finish)] == [
        "sft_update",
        "sft_batch",
        "sft_apply",
    ]
    grpo = PolicyUpdater(None, None, optimizer, GRPOConfig(batch=BatchShape(1, 16)), CONFIG, mesh)
    assert [part.function.__name__ for part in (grpo.score, grpo.accumulate, grpo.apply)] == [
        "grpo_score",
        "grpo_batch",
        "grpo_apply",
    ]


def test_the_programs_of_the_sampler_have_names_too():
    names = [function.__name__ for function in model_functions(None, EngineConfig())]
    assert names == ["rollout_extend", "rollout_decode", "rollout_copy", "rollout_encode"]
