"""Evaluation inside training: it changes nothing, is neither repeated nor lost by a resume, and keeps the best checkpoint."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import ConfigError, DataError, ToolUnavailable
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.data.rows import Row
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.checkpoints import Checkpoints
from mmsearch_jax.learners.groups import held_out_metrics
from mmsearch_jax.learners.held_out import BEST, HeldOut, best_policy, in_words, split_rows
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.training_run import RunPlace, TrainingRun
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.learning import GRPOConfig, RunConfig
from mmsearch_jax.settings.policy import MeshConfig
from tests.learners.test_grpo import EPISODE, RECIPE, EverySecond, Server, engine, metrics, policy

HELD = "held"


class ByStep(EverySecond):
    """The n-th evaluation finds `rights[n]` of the held-out rows right."""

    def __init__(self, rights):
        super().__init__(RECIPE.reward)
        self.rights, self.evaluations = rights, []

    async def score(self, trajectories, rows):
        await super().score(trajectories, rows)
        if trajectories[0].row_id.startswith(HELD):
            right = self.rights[len(self.evaluations)]
            self.evaluations.append([(t.row_id, t.token_ids, t.policy_version) for t in trajectories])
            for number, trajectory in enumerate(trajectories):
                trajectory.reward_parts["match"] = float(number < right)


def train(rows, workdir, scorer, *, held_out=True, calls=float("inf"), run=None, **changes):
    recipe = dataclasses.replace(RECIPE, **{"num_steps": 3, **changes})
    client = ToolClient("http://test", max_retries=0, transports=[Server(calls)])
    environment = grpo.Environment(engine(), client, EPISODE, scorer, ready_timeout_s=0.2)
    place = RunPlace(workdir, "grpo", run or RunConfig(keep=1), show_progress=False)
    held = [dataclasses.replace(row, id=f"{HELD}{i}{row.id}") for row in rows for i in range(2)]
    model = policy()
    own = HeldOut(held, 2, 0.0, 0) if held_out else None
    return grpo.train(model, rows, recipe, environment, place, held_out=own), recipe, place


def evaluations(workdir):
    return {record["step"]: record["eval_accuracy"] for record in metrics(workdir) if "eval_accuracy" in record}


@pytest.mark.parametrize("overlap", [False, True])
def test_evaluation_changes_nothing_in_the_training_and_the_best_policy_is_kept(rows, tmp_path, overlap):
    scorer = ByStep([1, 3, 2])
    with_it, recipe, place = train(rows, tmp_path / "with", scorer, overlap=overlap)
    without, _, _ = train(rows, tmp_path / "without", ByStep([]), held_out=False, overlap=overlap)
    for one, other in zip(jax.tree.leaves(nnx.state(with_it)), jax.tree.leaves(nnx.state(without)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert evaluations(tmp_path / "with") == {0: 0.25, 2: 0.75, 3: 0.5}
    # Each evaluation samples with the weights of its step.
    assert [{version for _, _, version in seen} for seen in scorer.evaluations] == [{0}, {2}, {3}]
    last = metrics(tmp_path / "with")[-1]
    assert last["eval_rows"] == 4 and last["eval_search_rate"] == 1.0 and last["eval_searches"] == 2.0
    mesh = LearnerMesh.of(MeshConfig())
    found = best_policy(policy(), recipe, place, mesh)
    assert found is not None
    best, step, accuracy = found
    assert (step, accuracy) == (2, 0.75)
    changed = [
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(nnx.state(best)), jax.tree.leaves(nnx.state(with_it)), strict=True)
    ]
    assert max(changed) > 0


def test_a_resumed_run_neither_repeats_nor_loses_evaluations(rows, tmp_path):
    whole = ByStep([3, 1, 2])
    train(rows, tmp_path / "whole", whole)
    finish = TrainingRun.finish_step

    def stop_after_first(run, step, *arguments, **options):
        finish(run, step, *arguments, **options)
        if step == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "finish_step", stop_after_first)
        with pytest.raises(KeyboardInterrupt):
            train(rows, tmp_path / "cut", first := ByStep([3]))
    assert len(first.evaluations) == 1
    train(rows, tmp_path / "cut", second := ByStep([1, 2]))
    assert first.evaluations + second.evaluations == whole.evaluations
    assert [record["step"] for record in metrics(tmp_path / "cut")] == [0, 1, 2, 3]
    assert evaluations(tmp_path / "cut") == evaluations(tmp_path / "whole") == {0: 0.75, 2: 0.25, 3: 0.5}
    with Checkpoints(tmp_path / "cut" / "checkpoints" / "grpo", 1, BEST) as checkpoints:
        assert checkpoints.best == (0, 0.75) and checkpoints.steps == [0, 3]


def test_tools_that_are_gone_stop_the_run_at_the_evaluation(rows, tmp_path):
    with pytest.raises(ToolUnavailable, match="no search server at http://test"):
        train(rows, tmp_path, ByStep([0]), calls=0)


def test_broken_episodes_are_not_counted_as_wrong():
    row = Row("a", "a.png", "Where?", ("Lima",), "crop", True)
    right = Trajectory("0", "a", "g", 0, 0, status=Status.ANSWERED, reward=1.0, reward_parts={"match": 1.0})
    broken = Trajectory("1", "a", "g", 0, 0, status=Status.TOOL_FAILED)
    found = held_out_metrics([right, broken], {"a": row})
    assert (found["eval_accuracy"], found["eval_rows"], found["eval_dropped"]) == (1.0, 1, 1)
    assert in_words(4, found) == "step 4: 100.0 % of 1 held-out rows right, 0.0 % searched"
    found = held_out_metrics([broken], {"a": row})
    assert found == {"eval_rows": 0, "eval_dropped": 1}
    assert in_words(4, found) == "step 4: none of the 1 held-out episodes could be scored"


def test_held_out_rows_are_not_trained_on():
    prompts = [Row(str(i), "a.png", "Where?", ("Lima",), "crop", True) for i in range(20)]
    held, rest = split_rows(prompts, 5, 0)
    assert len(held) == 5 and sorted([*held, *rest], key=lambda row: int(row.id)) == prompts
    assert split_rows(prompts, 5, 0) == (held, rest) != split_rows(prompts, 5, 1)
    with pytest.raises(DataError, match="grpo.eval_num_rows is 20, but there are 20 prompts"):
        split_rows(prompts, 20, 0)


def test_held_out_rows_without_an_interval_are_refused():
    with pytest.raises(ConfigError, match="eval_rows names held-out rows, but eval_every is 0"):
        GRPOConfig(eval_rows="held.jsonl")
