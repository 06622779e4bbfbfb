"""Runs the step loops of the engine and of the learners under JAX's transfer guard."""

import contextlib
import functools

import jax

from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.policy_update import PolicyUpdater
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.learners.training_run import TrainingRun
from mmsearch_jax.rollout.engine import Engine

# The guard holds for one thread: these also run in others than that of a learner's loop.
STEPS = (
    (Engine, "extend"),
    (Engine, "decode"),
    (Engine, "warm_up"),
    (Engine, "set_weights"),
    (LearnerMesh, "batch"),
    (SupervisedUpdate, "__call__"),
    (PolicyUpdater, "learn"),
)


def guard(monkeypatch) -> None:
    """Makes any implicit transfer in a step, or in the loop of a training run, raise.

    `device_put` and `device_get` are allowed. The loop of a run begins when `TrainingRun.begin` returns, and ends with the run.
    """
    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, _guarded(getattr(owner, name)))
    begin, end = TrainingRun.begin, TrainingRun.__exit__

    def begin_guarded(run, state):
        begun = begin(run, state)
        run.guarded = contextlib.ExitStack()
        run.guarded.enter_context(jax.transfer_guard("disallow"))
        return begun

    def end_guarded(run, *error):
        # A run that could not begin is not guarded.
        if hasattr(run, "guarded"):
            run.guarded.close()
        end(run, *error)

    monkeypatch.setattr(TrainingRun, "begin", begin_guarded)
    monkeypatch.setattr(TrainingRun, "__exit__", end_guarded)


def _guarded(step):
    @functools.wraps(step)
    def run(*arguments, **options):
        with jax.transfer_guard("disallow"):
            return step(*arguments, **options)

    return run
