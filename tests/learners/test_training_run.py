"""Everything around a run's steps: resuming, the guard, pre-emption, best checkpoint, curves without repeated steps."""

import dataclasses
import json
import os
import signal
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError, ConfigError, DirectoryInUse, Preempted, TrainingDiverged
from mmsearch_jax.core.run_lock import NAME, Owner
from mmsearch_jax.data.batches import pack
from mmsearch_jax.data.pipeline import Skipped, Step
from mmsearch_jax.learners import supervised
from mmsearch_jax.learners.checkpoints import Best, Checkpoints, _numbered
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.run_folder import set_aside
from mmsearch_jax.learners.run_identity import require_resumable
from mmsearch_jax.learners.run_log import RunLog
from mmsearch_jax.learners.train_state import create_train_state, make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import BatchShape, OptimizerConfig, RunConfig
from tests.learners.small_sequences import sequence
from tests.learners.test_training import SGD, batches
from tests.models.test_qwen2_5_vl import CONFIG
from tests.shallow import shallow


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VL(shallow(CONFIG), rngs=nnx.Rngs(0))


def train(model, steps, workdir, data=batches, *, run=None, identity=None, accumulate=1, validation=None):
    updates = supervised.Updates(steps, SGD, accumulate)
    place = RunPlace(workdir, "sft", run or RunConfig(), identity or {}, show_progress=False)
    return supervised.train(model, data, updates, place, validation=validation)


def weights(model):
    return jax.tree.leaves(nnx.split(model)[1])


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open(encoding="utf-8")]


def test_sigterm_saves_and_the_next_run_goes_on_to_the_same_weights(model, tmp_path):
    def interrupted(start, position):
        for number, step in enumerate(batches(start, position)):
            # Batches are prefetched, so the signal comes a step or two before this batch is used.
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match=r"asked to stop: step \d is saved in .*sft; run the same command to resume"):
        train(model, 8, tmp_path / "cut", interrupted)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(records(tmp_path / "cut")) < 8
    resumed, whole = train(model, 8, tmp_path / "cut"), train(model, 8, tmp_path / "whole")
    for a, b in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [r["loss"] for r in records(tmp_path / "cut")] == [r["loss"] for r in records(tmp_path / "whole")]


def test_gradients_that_stay_broken_stop_the_run_and_name_the_last_good_checkpoint(model, tmp_path):
    def broken_from_third(start, _):
        for number, step in enumerate(batches(start)):
            bad = step.batch._replace(loss_weights=np.where(step.batch.loss_weights > 0, np.inf, 0).astype(np.float32))
            yield Step(bad if number >= 3 else step.batch)

    config = RunConfig(checkpoint_every=1, keep=10, max_skipped=2)
    with pytest.raises(
        TrainingDiverged, match=r"2 consecutive updates .*up to step 5.*last good checkpoint is step 3 in"
    ):
        train(model, 9, tmp_path, broken_from_third, run=config)


def test_a_checkpoint_of_other_settings_is_refused_with_both_values(model, tmp_path):
    train(model, 1, tmp_path, identity={"seed": 0, "lora": {"rank": 8}})
    with pytest.raises(CheckpointError, match=r"made with lora.rank = 8, this run has 4"):
        train(model, 2, tmp_path, identity={"seed": 0, "lora": {"rank": 4}})


def test_an_update_from_many_batches_is_that_of_the_large_one(model, tmp_path):
    sequences = [sequence(i, 6 + 2 * i) for i in range(6)]
    large, left = pack(sequences, BatchShape(6, 32))
    assert not left
    small = [pack(sequences[i : i + 2], BatchShape(2, 32))[0].batch for i in (0, 2, 4)]
    one = train(model, 1, tmp_path / "one", lambda *_: iter([Step(large.batch)]))
    three = train(model, 1, tmp_path / "three", lambda *_: map(Step, small), accumulate=3)
    for a, b in zip(weights(one), weights(three), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    first, second = records(tmp_path / "one")[0], records(tmp_path / "three")[0]
    for name in ("loss", "target_nll", "target_sure", "target_tokens", "grad_norm"):
        assert first[name] == pytest.approx(second[name], rel=1e-5), name


def test_validation_loss_is_that_of_the_trained_model(model, tmp_path):
    validation = [step.batch for step, _ in zip(batches(3), range(2), strict=False)]
    trained = train(model, 3, tmp_path, validation=supervised.Validation(validation, 2))
    assert ["validation_loss" in record for record in records(tmp_path)] == [False, True, True]
    score, losses, weights = nnx.jit(token_logprobs), [], []
    for batch in validation:
        scored = np.asarray(score(trained, batch).logprobs, np.float64)
        losses.append(-scored[batch.loss_weights > 0].sum())
        weights.append((batch.loss_weights > 0).sum())
    assert records(tmp_path)[-1]["validation_loss"] == pytest.approx(sum(losses) / sum(weights), rel=1e-5)


def test_the_latest_and_the_best_checkpoint_are_kept_and_hold_nothing_frozen(model, tmp_path):
    _, trained, frozen = split_model(model, ("language",))
    state = create_train_state(trained, frozen, make_optimizer(OptimizerConfig(), 1))
    with Checkpoints(tmp_path, keep=1, best=Best("validation_loss", largest=False)) as checkpoints:
        for step, loss in enumerate((3.0, 1.0, 2.0, None, 4.0), 1):
            checkpoints.save(step, state, {"position": step}, {} if loss is None else {"validation_loss": loss})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 5]
        restored, extra = checkpoints.restore(state)
    assert extra == {"position": 5} and restored.frozen is state.frozen
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(tmp_path / "5" / "state").item_metadata
    learnt = (state.params, state.opt_state, state.step, state.skipped)
    assert len(jax.tree.leaves(stored)) == len(jax.tree.leaves(learnt)) < len(jax.tree.leaves(state))


@pytest.mark.parametrize(("largest", "best"), [(True, 2), (False, 3)])
def test_the_best_checkpoint_survives_a_resume(model, tmp_path, largest, best):
    _, trained, frozen = split_model(model, ("language",))
    state = create_train_state(trained, frozen, make_optimizer(OptimizerConfig(), 1))
    values = {1: 2.0, 2: 3.0, 3: 1.0, 5: 2.5, 6: 2.0}
    for start in range(1, 7, 2):
        with Checkpoints(tmp_path, keep=1, best=Best("value", largest=largest)) as checkpoints:
            assert (checkpoints.best is None) == (start == 1)
            for step in (start, start + 1):
                checkpoints.save(step, state, {}, {"value": values[step]} if step in values else {})
    with Checkpoints(tmp_path, keep=1, best=Best("value", largest=largest)) as checkpoints:
        assert checkpoints.steps == [best, 6] and checkpoints.best == (best, values[best])


def test_a_packed_checkpoint_with_numbered_names_of_an_earlier_version_is_read(model, tmp_path):
    _, trained, frozen = split_model(model, ("language",))
    state = create_train_state(trained, frozen, make_optimizer(OptimizerConfig(), 1))
    with ocp.CheckpointManager(tmp_path) as manager:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_numbered(state)), extra=ocp.args.JsonSave({"position": 3})
        )
        manager.save(3, args=items)
    other = jax.tree.map(jnp.zeros_like, state)
    with Checkpoints(tmp_path) as checkpoints:
        restored, extra = checkpoints.restore(dataclasses.replace(other, frozen=state.frozen))
    assert extra == {"position": 3}
    for one, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_others_restore_parameters_by_name_without_our_classes(model, tmp_path):
    _, trained, frozen = split_model(model)
    state = create_train_state(trained, frozen, make_optimizer(OptimizerConfig(), 1))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    with ocp.PyTreeCheckpointer() as checkpointer:
        stored = checkpointer.restore(tmp_path / "1" / "state")
    assert set(stored) == {"params", "opt_state", "step", "skipped"}
    expected = nnx.to_pure_dict(trained)
    flat = {".".join(map(str, path)): leaf for path, leaf in nnx.traversals.flatten_mapping(expected).items()}
    named = {".".join(path): leaf for path, leaf in nnx.traversals.flatten_mapping(stored["params"]).items()}
    assert named.keys() == flat.keys() and len(named) > 20
    for name, leaf in named.items():
        np.testing.assert_array_equal(leaf, flat[name], err_msg=name)


def test_a_run_that_begins_anew_never_meets_the_earlier_ones_state(model, tmp_path):
    """After two steps of a new run, the next start goes on from those two, not from the four of the earlier run."""
    every = RunConfig(checkpoint_every=1, keep=9)
    (tmp_path / "policies" / "sft").mkdir(parents=True)
    (tmp_path / "policies" / "sft" / "config.json").write_text("old")
    train(model, 4, tmp_path, run=every)
    old = records(tmp_path)
    train(model, 2, tmp_path, lambda start, _: batches(start + 7), run=dataclasses.replace(every, resume=False))
    new = records(tmp_path)
    assert [r["step"] for r in new] == [1, 2] and new[0]["loss"] != old[0]["loss"]
    with Checkpoints(tmp_path / "checkpoints" / "sft") as checkpoints:
        assert checkpoints.steps == [1, 2]
    with Checkpoints(tmp_path / "checkpoints" / "sft.before-1") as checkpoints:
        assert checkpoints.steps == [1, 2, 3, 4]
    assert [json.loads(line) for line in (tmp_path / "metrics.before-1.jsonl").open()] == old
    assert not (tmp_path / "policies" / "sft").exists() and (tmp_path / "policies" / "sft.before-1").is_dir()
    train(model, 3, tmp_path, run=every)
    assert [r["step"] for r in records(tmp_path)] == [1, 2, 3]
    assert [r["loss"] for r in records(tmp_path)[:2]] == [r["loss"] for r in new]


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_in_a_directory_in_use_is_refused_before_it_touches_anything(model, tmp_path, resume):
    train(model, 1, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / NAME).write_bytes(Owner.here(os.getppid()).encode())
    with pytest.raises(DirectoryInUse, match=f"in use by process {os.getppid()} on"):
        train(model, 2, tmp_path, run=RunConfig(resume=resume))
    (tmp_path / NAME).unlink()
    (tmp_path / f".{NAME}.guard").unlink(missing_ok=True)
    assert sorted(tmp_path.rglob("*")) == [path for path in before if path.name != f".{NAME}.guard"]


def test_beginning_anew_twice_keeps_both_and_other_phases_stay(tmp_path):
    for folder in ("checkpoints/sft/4", "checkpoints/grpo/2", "rollouts", "checkpoints/sft.before-1/3"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "rollouts" / "1.jsonl").write_text("{}")
    assert set_aside(tmp_path, "sft") == [tmp_path / "checkpoints" / "sft.before-2"]
    assert set_aside(tmp_path, "sft") == []
    assert (tmp_path / "checkpoints" / "grpo" / "2").is_dir() and (tmp_path / "rollouts").is_dir()
    assert set_aside(tmp_path, "grpo") == [tmp_path / "checkpoints" / "grpo.before-1", tmp_path / "rollouts.before-1"]


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    with RunLog(tmp_path, "sft", 5, show_progress=False) as log:
        for step in range(1, 5):
            log.write(step, {"loss": step})
    with RunLog(tmp_path, "other", 5, show_progress=False) as log:
        log.write(4, {"loss": 9})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "sft", "st')
    with RunLog(tmp_path, "sft", 5, start=2, show_progress=False) as log:
        log.write(3, {"loss": 7})
    assert [(r["phase"], r["step"], r["loss"]) for r in records(tmp_path)] == [
        ("sft", 1, 1),
        ("sft", 2, 2),
        ("other", 4, 9),
        ("sft", 3, 7),
    ]


def test_rows_that_are_left_out_are_told_and_counted(model, tmp_path, capsys):
    def data(start, _):
        for number, step in enumerate(batches(start)):
            yield step._replace(skipped=[Skipped(i, f"row {number}.{i}: no image") for i in range(15)])

    train(model, 2, tmp_path, data)
    assert [record["skipped_rows"] for record in records(tmp_path)] == [15, 30]
    said = capsys.readouterr().out
    assert said.count("no image") == 20 and "further skipped rows are only counted" in said


def test_weights_and_biases_gets_the_numbers_and_its_absence_is_told(tmp_path, monkeypatch):
    logged = []
    fake = types.SimpleNamespace(
        init=lambda **options: logged.append(options) or types.SimpleNamespace(log=logged.append, finish=lambda: None)
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with RunLog(tmp_path, "sft", 1, show_progress=False, wandb_project="p") as log:
        log.write(1, {"loss": 0.5, "bad": float("nan")})
    assert logged[0]["project"] == "p" and logged[1] == {"sft/loss": 0.5, "sft/step": 1}
    with RunLog(tmp_path, "sft", 1, show_progress=False, wandb_project="p", hyperparameters={"seed": 3}):
        pass
    RunLog(tmp_path, "grpo", 1, show_progress=False, wandb_project="p").__exit__()
    first, resumed, other = (options for options in logged if "project" in options)
    assert first["id"] == resumed["id"] != other["id"] and resumed["resume"] == "allow"
    assert resumed["config"] == {"seed": 3}
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        RunLog(tmp_path, "sft", 1, show_progress=False, wandb_project="p")


def steps_in_trace(workdir):
    (trace,) = (workdir / "profile").rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    # The trace holds executed programs, not only the step markers.
    assert any("Execute" in event.name for event in events)
    return [dict(event.stats)["step_num"] for event in events if event.name == "train"]


def test_the_steps_that_are_asked_for_are_traced_and_no_others(model, tmp_path):
    config = RunConfig(checkpoint_every=1, profile_steps=2, profile_first=2)
    train(model, 4, tmp_path / "whole", run=config)
    assert steps_in_trace(tmp_path / "whole") == [2, 3]
    # Steps count from this start, because the first step compiles again.
    train(model, 2, tmp_path / "cut", run=RunConfig(checkpoint_every=1))
    train(model, 4, tmp_path / "cut", run=config)
    assert steps_in_trace(tmp_path / "cut") == [4]


def test_nothing_is_traced_unless_asked(model, tmp_path):
    train(model, 3, tmp_path)
    assert not (tmp_path / "profile").exists()


def test_the_settings_of_a_run_are_read_without_jax_and_kept_where_it_begins(model, tmp_path):
    def begin(rank):
        place = RunPlace(
            tmp_path, "sft", RunConfig(), {"lora": {"rank": rank}}, show_progress=False, hyperparameters={"rank": rank}
        )
        supervised.train(model, batches, supervised.Updates(2, SGD), place)

    begin(4)
    kept = (tmp_path / "settings" / "sft.json").read_text()
    assert json.loads(kept) == {"rank": 4}
    require_resumable(tmp_path, "sft", {"lora": {"rank": 4}, "seed": 0})
    for start in (lambda: require_resumable(tmp_path, "sft", {"lora": {"rank": 8}}), lambda: begin(8)):
        with pytest.raises(CheckpointError, match=r"step 2 in .* was made with lora.rank = 4, this run has 8"):
            start()
    assert (tmp_path / "settings" / "sft.json").read_text() == kept
    require_resumable(tmp_path, "grpo", {"lora": {"rank": 8}})
