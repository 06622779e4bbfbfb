"""Runs the step loops of the engine and of the learners under JAX's transfer guard."""

import functools

import jax

from mmsearch_jax.learners.policy_update import PolicyUpdater
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.rollout.engine import Engine

STEPS = (
    (Engine, "extend"),
    (Engine, "decode"),
    (Engine, "warm_up"),
    (SupervisedUpdate, "__call__"),
    (PolicyUpdater, "learn"),
)


def guard(monkeypatch) -> None:
    """Makes any implicit transfer in a step raise; `device_put` and `device_get` are allowed."""
    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, _guarded(getattr(owner, name)))


def _guarded(step):
    @functools.wraps(step)
    def run(*arguments, **options):
        with jax.transfer_guard("disallow"):
            return step(*arguments, **options)

    return run
