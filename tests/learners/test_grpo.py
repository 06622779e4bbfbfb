"""The GRPO loop with a small random policy: on-policy log-probs, resuming, and a search server that stops."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import ConfigError, DataError, ToolUnavailable
from mmsearch_jax.core.search_api import SearchReply, SearchResult
from mmsearch_jax.core.trajectory import SAMPLED, Trajectory, read_jsonl
from mmsearch_jax.data.set_aside import SetAside
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.checkpoints import Checkpoints
from mmsearch_jax.learners.groups import Groups, step_totals
from mmsearch_jax.learners.policy_update import fitting, training_sequence
from mmsearch_jax.learners.training_run import RunPlace, TrainingRun
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.commands import GRPOSettings
from mmsearch_jax.settings.learning import (
    BatchShape,
    GRPOConfig,
    GRPOLossConfig,
    OptimizerConfig,
    RewardConfig,
    RunConfig,
)
from mmsearch_jax.settings.rollout import EngineConfig, EpisodeConfig
from tests.rollout import random_policy

SIZES = EngineConfig(
    num_slots=8,
    max_length=256,
    extend_rows=(4,),
    extend_buckets=(64,),
    decode_rows=(),
    length_buckets=(),
    decode_steps=8,
)
SHAPE = BatchShape(4, 256, 2, 24)
RECIPE = GRPOConfig(
    num_steps=2,
    prompts_per_step=2,
    group_size=4,
    updates_per_batch=1,
    skip_uniform=False,
    batch=SHAPE,
    reward=RewardConfig(match="exact"),
    optimizer=OptimizerConfig(learning_rate=1e-3),
)
# In a RAG workflow every episode calls the tools, whatever the policy writes.
EPISODE = EpisodeConfig(
    mode="rag", prompt_style="short", max_turn_tokens=12, max_trajectory_tokens=256, observation_max_tokens=24
)


class Server:
    """Answers `calls` requests and then stops."""

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


def policy():
    return random_policy.model(random_policy.SHALLOW)


@functools.cache
def engine():
    """One engine for all tests: it is compiled once, and each run sets its own weights."""
    return random_policy.engine(SIZES, policy())


class EverySecond(Scorer):
    """Rewards every other trajectory, because a random policy is never right and would have no gradient."""

    async def score(self, trajectories, rows):
        await super().score(trajectories, rows)
        for number, trajectory in enumerate(trajectories):
            trajectory.reward = float(number % 2)


def every_second():
    return EverySecond(RECIPE.reward)


def train(rows, calls, workdir, recipe=RECIPE, *, scorer=None, run=None, aside=None):
    client = ToolClient("http://test", max_retries=0, transports=[Server(calls)])
    environment = grpo.Environment(engine(), client, EPISODE, scorer or Scorer(recipe.reward), ready_timeout_s=0.2)
    place = RunPlace(workdir, "grpo", run or RunConfig(), show_progress=False)
    return grpo.train(policy(), rows, recipe, environment, place, aside=aside)


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open(encoding="utf-8")]


def test_the_first_update_is_on_policy(rows, tmp_path):
    train(rows, float("inf"), tmp_path, dataclasses.replace(RECIPE, temperature=0.6))
    first, second = metrics(tmp_path)
    assert first["dropped"] == second["dropped"] == 0
    assert first["rollout_learner_kl"] == pytest.approx(0, abs=1e-8)
    assert first["max_ratio"] == pytest.approx(1, abs=1e-4)
    assert (tmp_path / "rollouts" / "00002.jsonl").is_file()


def test_greedy_rollouts_are_refused():
    with pytest.raises(ConfigError, match=r"temperature is 0.0: must be above 0"):
        GRPOConfig(temperature=0.0)


def test_a_server_that_goes_away_stops_the_run_and_names_it(rows, tmp_path):
    with pytest.raises(ToolUnavailable, match="no search server at http://test.*serve-tools"):
        train(rows, 16, tmp_path)
    assert [record["step"] for record in metrics(tmp_path)] == [1]


def test_episodes_that_broke_are_counted_and_the_others_learnt_from(rows, tmp_path):
    train(rows, 30, tmp_path)
    second = metrics(tmp_path)[1]
    assert 0 < second["dropped"] < 8 and second["updates"] > 0


def test_an_update_is_the_same_however_many_batches_it_fills(rows, tmp_path):
    recipe = dataclasses.replace(RECIPE, num_steps=1, loss=GRPOLossConfig(aggregation="sequence"))
    whole, parts = (
        train(rows, float("inf"), tmp_path / name, dataclasses.replace(recipe, batch=BatchShape(size, 256, 2, 24)))
        for name, size in (("whole", 8), ("parts", 1))
    )
    for one, other in zip(jax.tree.leaves(nnx.split(whole)[1]), jax.tree.leaves(nnx.split(parts)[1]), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)
    assert metrics(tmp_path / "whole")[0]["loss"] == pytest.approx(metrics(tmp_path / "parts")[0]["loss"], abs=1e-5)
    assert metrics(tmp_path / "parts")[0]["updates"] == 1


def saved_trajectories(workdir, step):
    return [(t.group_id, t.token_ids, t.policy_version) for t in read_jsonl(workdir / "rollouts" / f"{step:05d}.jsonl")]


def test_a_resumed_run_rolls_out_and_learns_the_same(rows, tmp_path):
    recipe = dataclasses.replace(RECIPE, num_steps=3, save_groups=9, loss=GRPOLossConfig(importance_cap=2.0))

    def stop_after_first(run, step, *arguments, **more):
        finish(run, step, *arguments, **more)
        if step == 1:
            raise KeyboardInterrupt

    whole = train(rows, float("inf"), tmp_path / "whole", recipe, scorer=every_second())
    finish = TrainingRun.finish_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "finish_step", stop_after_first)
        with pytest.raises(KeyboardInterrupt):
            train(
                rows, float("inf"), tmp_path / "cut", recipe, run=RunConfig(checkpoint_every=1), scorer=every_second()
            )
    resumed = train(rows, float("inf"), tmp_path / "cut", recipe, scorer=every_second())
    for step in (1, 2, 3):
        assert saved_trajectories(tmp_path / "cut", step) == saved_trajectories(tmp_path / "whole", step)
    for one, other in zip(jax.tree.leaves(nnx.split(whole)[1]), jax.tree.leaves(nnx.split(resumed)[1]), strict=True):
        np.testing.assert_array_equal(one, other)
    losses = [record["loss"] for record in metrics(tmp_path / "whole")]
    assert losses[1] != losses[2]
    assert [record["loss"] for record in metrics(tmp_path / "cut")] == [r["loss"] for r in metrics(tmp_path / "whole")]


def test_uniform_groups_are_replaced_by_further_prompts(rows, tmp_path):
    # A random policy is never right, so all groups are uniform, and all rounds are used.
    recipe = dataclasses.replace(RECIPE, num_steps=1, skip_uniform=True, sampling_rounds=3, save_groups=9)
    train(rows, float("inf"), tmp_path, recipe)
    with Checkpoints(tmp_path / "checkpoints" / "grpo") as checkpoints:
        assert checkpoints.read_extra(1)["position"] == {"prompts": 6}
    assert len({name for name, _, _ in saved_trajectories(tmp_path, 1)}) == 6
    assert metrics(tmp_path)[0]["uniform_groups"] == 6 and metrics(tmp_path)[0]["updates"] == 0


def test_of_more_trajectories_than_needed_the_first_to_end_are_kept(rows, tmp_path):
    train(rows, float("inf"), tmp_path, dataclasses.replace(RECIPE, num_steps=1, oversample=2))
    record = metrics(tmp_path)[0]
    assert record["status_surplus"] == record["dropped"] == 4


def test_with_overlap_the_rollouts_are_one_update_behind(rows, tmp_path):
    recipe = dataclasses.replace(RECIPE, num_steps=3, overlap=True, loss=GRPOLossConfig(importance_cap=2.0))
    train(rows, float("inf"), tmp_path, recipe, scorer=every_second())
    versions = [{version for _, _, version in saved_trajectories(tmp_path, step)} for step in (1, 2, 3)]
    assert versions == [{0}, {0}, {1}]
    first, second, third = metrics(tmp_path)
    # The learner's policy has been updated, so its mismatch with the sampler is more than rounding.
    assert first["rollout_learner_kl"] < 1e-8 < second["rollout_learner_kl"]
    assert third["updates"] == 1


def test_mini_batches_and_epochs_multiply_updates_and_move_the_ratio(rows, tmp_path):
    recipe = dataclasses.replace(RECIPE, num_steps=1, updates_per_batch=2, epochs=2)
    train(rows, float("inf"), tmp_path, recipe, scorer=every_second())
    record = metrics(tmp_path)[0]
    assert record["updates"] == 4 and record["max_ratio"] > 1.0001


def test_an_empty_set_of_prompts_is_refused(tmp_path):
    with pytest.raises(DataError, match="there are no prompts to train on"):
        train([], float("inf"), tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"group_size": 1}, "group_size is 1, below min_group"), ({"epochs": 0}, "epochs is 0: must be at least 1")],
)
def test_settings_that_teach_nothing_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        GRPOConfig(**setting)


def test_text_only_prompts_are_learnt_from_and_damaged_images_are_passed_over(rows, tmp_path):
    (tmp_path / "cut.png").write_bytes(random_policy.picture(1)[:-60])
    odd = [dataclasses.replace(rows[0], id="text", image=""), dataclasses.replace(rows[0], id="cut", image="cut.png")]
    odd[1] = dataclasses.replace(odd[1], image=str(tmp_path / "cut.png"))
    aside = SetAside(tmp_path, "grpo", "r", 4, 0.5, "grpo.max_unusable")
    aside.start([])
    recipe = dataclasses.replace(RECIPE, num_steps=2, save_groups=9)
    train([*rows, *odd], float("inf"), tmp_path, recipe, scorer=every_second(), aside=aside)
    played = {name.partition("-")[2] for step in (1, 2) for name, _, _ in saved_trajectories(tmp_path, step)}
    assert "text" in played and "cut" not in played and "cut" in aside
    assert metrics(tmp_path)[1]["set_aside_rows"] == 1
    assert [record["dropped"] + record["too_long"] for record in metrics(tmp_path)] == [0, 0]
    assert all(record["rollout_learner_kl"] < 1e-6 for record in metrics(tmp_path)[:1])


def test_a_trajectory_that_is_longer_than_a_row_is_left_out_and_counted(rows):
    config = random_policy.CONFIG
    played = Trajectory("t", "t", "t", 0, 0, [1] * 9, [SAMPLED] * 9, [0.0] * 9)
    whole = training_sequence(played, 1.0, None, config)
    kept, left_out = fitting([whole, whole], BatchShape(1, 9))
    assert len(kept) == 2 and left_out == 0
    assert fitting([whole, whole], BatchShape(1, 8)) == ([], 2)


def test_groups_and_speed_are_those_of_all_processes(monkeypatch):
    """Two processes, of which the other sampled as much as this one in twice the time."""
    module = "mmsearch_jax.learners.groups"
    monkeypatch.setattr(f"{module}.sums_of_all", lambda values: {name: 2 * value for name, value in values.items()})
    monkeypatch.setattr(f"{module}.records_of_all", lambda value: [value, 2 * value])
    played = Trajectory("t", "t", "t", 0, 0, [1] * 6, [SAMPLED] * 6, [0.0] * 6)
    totals = step_totals(Groups([], 3, 1), [played, played], 4.0, too_long=1)
    assert totals == {"useful_groups": 6, "uniform_groups": 2, "too_long": 2, "tokens_per_second": 24 / 8}


def test_a_row_of_the_batch_must_hold_the_longest_trajectory():
    with pytest.raises(
        ConfigError, match=r"grpo.batch.length is 11, but episode.max_trajectory_tokens is 12.*set it to 12"
    ):
        GRPOSettings(grpo=GRPOConfig(batch=BatchShape(1, 11)), episode=EpisodeConfig(max_trajectory_tokens=12))
