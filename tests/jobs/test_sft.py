"""What an SFT run takes over from its work directory, and what it refuses there."""

import dataclasses

import pytest
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError, ConfigError
from mmsearch_jax.data import pipeline
from mmsearch_jax.jobs import grpo, sft
from mmsearch_jax.jobs.sft import _lanes
from mmsearch_jax.learners.checkpoints import Checkpoints
from mmsearch_jax.learners.train_state import create_train_state, make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.commands import GRPOSettings, SFTSettings
from mmsearch_jax.settings.learning import TOY_WORLD, BatchShape, OptimizerConfig, RunConfig
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


@pytest.mark.parametrize(
    ("job", "run", "settings", "makes"),
    [
        (sft, sft.run_sft, SFTSettings(), "teacher_conversations"),
        (grpo, grpo.run_grpo, GRPOSettings(), "prepare_world"),
    ],
    ids=["sft", "grpo"],
)
def test_another_run_s_work_directory_is_refused_before_its_world_is_replaced(
    job, run, settings, makes, tmp_path, monkeypatch
):
    place = RunPlace(tmp_path, job.__name__, identity={"lora": {"rank": 4}})
    _, trained, frozen = split_model(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), ("language",))
    state = create_train_state(trained, frozen, make_optimizer(OptimizerConfig(), 1))
    with Checkpoints(place.checkpoints) as checkpoints:
        checkpoints.save(1, state, {"position": {"of": {"lanes": 4}, "lanes": {}}, "identity": {"lora.rank": 8}})
    recipe = dataclasses.replace(settings.sft.data, sets=(TOY_WORLD,)) if job is sft else TOY_WORLD
    stage = settings.sft if job is sft else settings.grpo
    stage = dataclasses.replace(stage, **{"data" if job is sft else "rows": recipe})
    settings = dataclasses.replace(settings, **{"sft" if job is sft else "grpo": stage})
    monkeypatch.setattr(job, "trainable_policy", lambda *_: None)
    monkeypatch.setattr(job, "run_place", lambda *_: place)
    monkeypatch.setattr(job, makes, lambda *_: pytest.fail("the world was made anew"))
    with pytest.raises(CheckpointError, match=r"made with lora.rank = 8, this run has 4"):
        run(settings, tmp_path)


def test_processes_that_do_not_divide_a_resumed_run_s_lanes_are_refused():
    config = pipeline.PipelineConfig(BatchShape(8, 32, 8, 24), lanes=4)
    with pytest.raises(ConfigError, match="cannot serve 4 lanes.* use a number of processes that divides 4"):
        pipeline._check(config, 1, 0, 8)
