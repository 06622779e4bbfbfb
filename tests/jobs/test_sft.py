"""The number of lanes of an SFT run's data."""

import dataclasses

import pytest
from flax import nnx

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.data import pipeline
from mmsearch_jax.jobs.sft import _lanes
from mmsearch_jax.learners.checkpoints import Checkpoints
from mmsearch_jax.learners.train_state import create_train_state, make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.commands import SFTSettings
from mmsearch_jax.settings.learning import BatchShape, OptimizerConfig, RunConfig
from tests.models.test_qwen2_5_vl import CONFIG


def test_a_resumed_run_keeps_the_lanes_of_its_data(tmp_path):
    place, settings = RunPlace(tmp_path, "sft"), SFTSettings()
    assert _lanes(settings, place) == 8
    _, trained, frozen = split_model(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), ("language",))
    state = create_train_state(trained, frozen, make_optimizer(OptimizerConfig(), 1))
    with Checkpoints(place.checkpoints) as checkpoints:
        checkpoints.save(1, state, {"position": {"of": {"lanes": 4}, "lanes": {}}})
    assert _lanes(settings, place) == 4
    assert _lanes(settings, dataclasses.replace(place, config=RunConfig(resume=False))) == 8


def test_processes_that_do_not_divide_a_resumed_run_s_lanes_are_refused():
    config = pipeline.PipelineConfig(BatchShape(8, 32, 8, 24), lanes=4)
    with pytest.raises(ConfigError, match="cannot serve 4 lanes.* use a number of processes that divides 4"):
        pipeline._check(config, 1, 0, 8)
