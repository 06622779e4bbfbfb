"""The loop of GRPO with a small random policy: on-policy log-probs, resuming, and a search server that goes away."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.data.batches import BatchShape
from mmsearch_jax.data.schema import Row
from mmsearch_jax.errors import ConfigError, ToolUnavailable
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.losses import GRPOLossConfig
from mmsearch_jax.learners.train_state import OptimizerConfig
from mmsearch_jax.protocol import SearchReply, SearchResult
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.sequence import EngineConfig
from mmsearch_jax.rollout.tool_client import ToolClient
from tests.rollout import random_policy

SIZES = EngineConfig(num_slots=8, max_length=256, extend_rows=(4,), extend_buckets=(64,), decode_rows=(),
                     length_buckets=(), decode_steps=8)  # fmt: skip
SHAPE = BatchShape(4, 256, 2, 24)
RECIPE = grpo.GRPOConfig(num_steps=2, prompts_per_step=2, group_size=4, skip_uniform=False)
# Every episode of a RAG workflow calls the tools, whatever the policy writes.
EPISODE = EpisodeConfig(mode="rag", prompt_style="short", max_turn_tokens=12, max_trajectory_tokens=256,
                        observation_max_tokens=24)  # fmt: skip


class Server:
    """Answers `calls` requests and is gone then."""

    def __init__(self, calls: float):
        self.left = calls

    async def request(self, method, path, body):
        if self.left <= 0:
            raise ConnectionError("connection refused")
        if method == "POST":
            self.left -= 1
        return 200, SearchReply((SearchResult("Peru", "Capital: Lima"),), "text_search").to_json()

    async def close(self):
        pass


@pytest.fixture
def rows(tmp_path):
    made = []
    for shade in range(2):
        path = tmp_path / f"{shade}.png"
        path.write_bytes(random_policy.picture(shade))
        made.append(Row(str(shade), str(path), "Where is it?", ("Lima",), "crop", True))
    return made


def train(rows, calls, workdir, recipe=RECIPE, shape=SHAPE):
    client = ToolClient("http://test", max_retries=0, transport=Server(calls))
    return grpo.train(
        random_policy.model(), random_policy.engine(SIZES), rows, client, recipe, EPISODE, shape,
        OptimizerConfig(learning_rate=1e-3), workdir, ready_timeout_s=0.2, show_progress=False,
    )  # fmt: skip


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open(encoding="utf-8")]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_first_update_is_on_policy(rows, tmp_path, temperature):
    train(rows, float("inf"), tmp_path, dataclasses.replace(RECIPE, temperature=temperature))
    first, second = metrics(tmp_path)
    assert first["dropped"] == second["dropped"] == 0
    assert first["rollout_learner_kl"] == pytest.approx(0, abs=1e-8)
    assert first["max_ratio"] == pytest.approx(1, abs=1e-4)
    assert (tmp_path / "rollouts" / "00002.jsonl").is_file()


def test_greedy_rollouts_are_refused():
    with pytest.raises(ConfigError, match=r"grpo.temperature is 0, must be above 0"):
        grpo.GRPOConfig(temperature=0.0)


def test_a_server_that_goes_away_stops_the_run_and_names_it(rows, tmp_path):
    with pytest.raises(ToolUnavailable, match="no search server at http://test.*serve-tools"):
        train(rows, 16, tmp_path)
    assert [record["step"] for record in metrics(tmp_path)] == [1]


def test_episodes_that_broke_are_counted_and_the_others_learnt_from(rows, tmp_path):
    train(rows, 30, tmp_path)
    second = metrics(tmp_path)[1]
    assert 0 < second["dropped"] < 8 and second["updates"] > 0


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_an_update_is_the_same_however_many_batches_it_fills(rows, tmp_path, aggregation):
    recipe = dataclasses.replace(RECIPE, num_steps=1, loss=GRPOLossConfig(aggregation=aggregation))
    whole = train(rows, float("inf"), tmp_path / "whole", recipe, BatchShape(8, 256, 2, 24))
    parts = train(rows, float("inf"), tmp_path / "parts", recipe, BatchShape(1, 256, 2, 24))
    for one, other in zip(jax.tree.leaves(nnx.split(whole)[1]), jax.tree.leaves(nnx.split(parts)[1]), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)
    assert metrics(tmp_path / "whole")[0]["loss"] == pytest.approx(metrics(tmp_path / "parts")[0]["loss"], abs=1e-5)
    assert metrics(tmp_path / "parts")[0]["updates"] == 1
