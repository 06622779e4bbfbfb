"""The training loops on a very small policy."""

import asyncio
import json
import queue

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError, DataError
from mmsearch_jax.core.protocol import Answer
from mmsearch_jax.core.trajectory import Status, Trajectory, Turn
from mmsearch_jax.data.batches import pack_stream
from mmsearch_jax.data.pipeline import Step
from mmsearch_jax.data.rows import Row
from mmsearch_jax.learners import grpo, supervised
from mmsearch_jax.learners.groups import group, rollout_metrics
from mmsearch_jax.learners.policy_update import training_sequence
from mmsearch_jax.learners.train_state import create_train_state, make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.settings.learning import BatchShape, OptimizerConfig, RewardConfig, RunConfig
from tests.learners.small_sequences import PLACEHOLDER, sequence
from tests.models.test_qwen2_5_vl import CONFIG, image
from tests.shallow import shallow


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VL(shallow(CONFIG), rngs=nnx.Rngs(0))


def batches(start, _=None):
    def endless():
        number = 0
        while True:
            yield sequence(number % 7, 10 + number % 5)
            number += 1

    stream = pack_stream(endless(), BatchShape(2, 32))
    for _ in range(start):
        next(stream)
    return map(Step, stream)


SGD = OptimizerConfig(learning_rate=1e-2, warmup_steps=1)


def test_the_loop_learns_and_a_resumed_run_ends_with_the_same_weights(model, tmp_path):
    whole = supervised.train(
        model, batches, supervised.Updates(8, SGD), RunPlace(tmp_path / "whole", "sft", show_progress=False)
    )

    # An interrupted run: its data end after four steps, with a checkpoint at the third.
    def short(start, _):
        return (batch for _, batch in zip(range(4 - start), batches(start), strict=False))

    with pytest.raises(DataError, match="the data end after 4 of 8 steps"):
        supervised.train(
            model,
            short,
            supervised.Updates(8, SGD),
            RunPlace(tmp_path / "cut", "sft", RunConfig(3), show_progress=False),
        )
    resumed = supervised.train(
        model, batches, supervised.Updates(8, SGD), RunPlace(tmp_path / "cut", "sft", show_progress=False)
    )
    for a, b in zip(jax.tree.leaves(nnx.split(whole)[1]), jax.tree.leaves(nnx.split(resumed)[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").open()]
    assert losses[-1] < losses[0] - 0.3


def test_the_next_batches_are_on_the_device_before_they_are_asked_for():
    placed = queue.Queue()

    def place(batch):
        placed.put(batch)
        return jax.device_put(batch)

    stream = supervised._prefetched(batches(0), place)
    first, on_device = next(stream)
    # Two more batches are placed before the second one is taken.
    arrived = [placed.get(timeout=30) for _ in range(3)]
    assert isinstance(on_device.token_ids, jax.Array)
    np.testing.assert_array_equal(on_device.token_ids, first.batch.token_ids)
    second, _ = next(stream)
    assert arrived[0] is first.batch and arrived[1] is second.batch
    stream.close()


def test_what_breaks_while_batches_are_made_reaches_the_loop():
    def broken():
        yield next(batches(0))
        raise DataError("row 7 is gone")

    stream = supervised._prefetched(broken(), jax.device_put)
    next(stream)
    with pytest.raises(DataError, match="row 7 is gone"):
        next(stream)


def test_a_checkpoint_of_another_model_is_refused(model, tmp_path):
    supervised.train(model, batches, supervised.Updates(1, SGD), RunPlace(tmp_path, "sft", show_progress=False))
    other = Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(1))
    with pytest.raises(CheckpointError, match="does not fit this config"):
        supervised.train(
            other,
            batches,
            supervised.Updates(2, SGD, freeze=("vision",)),
            RunPlace(tmp_path, "sft", show_progress=False),
        )


def test_a_frozen_tower_takes_no_optimiser_memory_and_stays(model):
    def memory(freeze):
        _, trained, kept = split_model(model, freeze)
        state = create_train_state(trained, kept, make_optimizer(SGD, 1))
        return sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state)), sum(
            leaf.nbytes for leaf in jax.tree.leaves(kept)
        )

    (all_bytes, _), (less_bytes, kept_bytes) = memory(()), memory(("vision",))
    assert all_bytes - less_bytes == 2 * kept_bytes
    assert kept_bytes > 0


def test_training_leaves_the_given_model_usable(model, tmp_path):
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.split(model)[1])]
    supervised.train(
        model, batches, supervised.Updates(2, SGD, freeze=("vision",)), RunPlace(tmp_path, "sft", show_progress=False)
    )
    for a, b in zip(before, jax.tree.leaves(nnx.split(model)[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gradient_that_is_not_finite_is_left_out_and_counted(model):
    graph, trained, kept = split_model(model)
    optimizer = make_optimizer(SGD, 4)
    state = create_train_state(trained, kept, optimizer)
    update = supervised.SupervisedUpdate(graph, optimizer)
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
    batch = jax.device_put(next(batches(0)).batch)
    state, metrics = update(state, [batch._replace(loss_weights=jnp.where(batch.loss_weights > 0, jnp.inf, 0.0))])
    assert int(metrics["skipped_updates"]) == 1
    for a, b in zip(before, jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)
    state, metrics = update(state, [batch])
    assert int(metrics["skipped_updates"]) == 1


def trajectory(name, group, answer, status=Status.ANSWERED):
    turns = [Turn("", "r", Answer(answer), 2, 4)]
    return Trajectory(
        name,
        "row",
        group,
        token_ids=[7, 8, 9, 10],
        provenance=[0, 2, 1, 1],
        logprobs=[0, 0, -1.0, -2.0],
        turns=turns,
        status=status,
        answer=answer,
    )


def test_broken_episodes_are_left_out_of_their_group_never_scored_zero():
    rows = {"row": Row("row", "i.jpg", "q", ("Paris",), "crop", True)}
    made = [
        trajectory("a", "g", "Paris"),
        trajectory("b", "g", "Oslo"),
        trajectory("c", "g", "", Status.TOOL_FAILED),
        trajectory("d", "h", "Rome"),
        trajectory("e", "h", "Rome"),
    ]
    asyncio.run(Scorer(RewardConfig(match="exact")).score(made, rows))
    grouped = group(made)
    assert [(t.id, round(a, 6)) for t, a in grouped.learnt] == [("a", 0.45), ("b", -0.45)]
    assert made[2].reward is None
    assert (grouped.num_useful, grouped.num_uniform) == (1, 1)
    assert rollout_metrics(made, rows)["dropped"] == 1


def test_the_learner_trains_on_the_samplers_ids_and_on_sampled_tokens_only():
    picture = image(0, 2, 4)
    made = trajectory("a", "g", "Paris")
    made.token_ids = [PLACEHOLDER, PLACEHOLDER, 9, 10]
    made.image_grids = [picture.grid]
    learnt = training_sequence(made, 0.5, picture, CONFIG)
    assert learnt.token_ids.tolist() == made.token_ids
    assert learnt.loss_weights.tolist() == [0, 0, 1, 1]
    assert learnt.extras["rollout_logprobs"].tolist() == [0, 0, -1, -2]


def test_every_row_is_visited_once_an_epoch():
    rows = [Row(str(i), "", "q", ("a",), "crop", True) for i in range(10)]
    seen = [row.id for step in range(5) for _, row, _ in grpo.Prompts(rows, seed=0).take(4 * step, 4)[0]]
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(row.id for row in rows)
    assert seen[:10] != seen[10:]


def test_an_implicit_transfer_between_the_steps_of_a_run_raises(model, tmp_path):
    class Careless(supervised.Validation):
        def is_due(self, step, num_steps):
            return bool(jnp.exp(np.ones(2)).sum() > step)

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        supervised.train(
            model,
            batches,
            supervised.Updates(1, SGD),
            RunPlace(tmp_path, "sft"),
            validation=Careless([next(batches(0)).batch]),
        )


def test_an_implicit_transfer_in_a_step_raises(model):
    graph, trained, kept = split_model(model)
    optimizer = make_optimizer(SGD, 4)
    state = create_train_state(trained, kept, optimizer)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        supervised.SupervisedUpdate(graph, optimizer)(state, [next(batches(0)).batch])
