"""Estimates of a step: all engines of all hosts share the rollouts."""

import dataclasses
from types import SimpleNamespace

import pytest

from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning.stage import Assumed, stage_estimates
from mmsearch_jax.settings.commands import GRPOSettings
from mmsearch_jax.settings.rollout import EngineConfig


def plan(name, tokens):
    """A program that feeds or samples `tokens` tokens a second."""
    program = SimpleNamespace(
        name=name, learner=None, times=1.0, work=SimpleNamespace(tokens=tokens), arguments=(), mesh=None
    )
    return SimpleNamespace(program=program, seconds=1.0, memory=None, available=1.0)


@pytest.mark.parametrize(
    ("topology", "engine", "engines"),
    [
        ("h200:8", EngineConfig(), 8),
        ("h200:8", EngineConfig(tensor=4), 2),
        ("h200:8", EngineConfig(tensor=4, groups=1), 1),
        ("h200:16", EngineConfig(), 16),
        ("v5p:2x2x4", EngineConfig(tensor=4), 4),
        ("v5p:2x2x4", EngineConfig(), 16),
    ],
)
def test_every_engine_samples_its_share(topology, engine, engines):
    config = dataclasses.replace(GRPOSettings(), engine=engine)
    plans = [plan("grpo gradients", 1), plan("decode", 100), plan("extend", 1000)]
    (found,) = stage_estimates(config, plans, parse(topology), Assumed(3000, 800))  # type: ignore[arg-type]
    share = config.grpo.prompts_per_step * config.grpo.group_size / engines
    assert found.rollout_seconds == pytest.approx(share * (800 / 100 + 2200 / 1000))
