"""Advice in one line for a program that does not fit: the nearest setting that fits, estimated from hand count and plan."""

from __future__ import annotations

from collections.abc import Sequence

from mmsearch_jax.distributed.chips import GIB
from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.planning import search
from mmsearch_jax.planning.abstract import bytes_per_chip
from mmsearch_jax.planning.analyse import Plan
from mmsearch_jax.planning.memory import hand_count
from mmsearch_jax.planning.stage import StageEstimate
from mmsearch_jax.settings.commands import LearnerSettings


def advice(config: LearnerSettings, model: ModelConfig, topology: Topology, plan: Plan) -> str:
    """Advice for a program that does not fit: fewer slots for the sampler, or another mesh, batch or remat for a learner."""
    over = f"{plan.program.name} needs {plan.needed / GIB:.1f} GiB of {plan.available / GIB:.1f} GiB"
    if plan.program.learner is None:
        slots = _slots(config, plan, plan.needed - plan.available)
        if slots:
            return f"{over}: set --config.engine.num_slots={slots} (estimate)"
        return f"{over}: lower engine.max_length, or the largest of engine.extend_rows and engine.extend_buckets"
    stage = plan.program.name.split(" ")[0]
    scale = plan.needed / hand_count(plan.program.learner).total
    near = search.nearest_that_fits(config, stage, model, topology, scale)
    if near is None:
        return f"{over}, and no mesh, batch or remat makes it fit (estimate): take a larger slice than {topology.name}"
    changed = {key: value for key, value in near.overrides.items() if search.value_of(config, key) != value}
    return f"{over}: set {' '.join(f'--config.{key}={value}' for key, value in changed.items())} (estimate)"


def held_advice(config: LearnerSettings, stage: StageEstimate, plans: Sequence[Plan]) -> str:
    """Advice for a learner and a sampler that do not fit on the same chips together."""
    over = f"{stage.stage}: learner and sampler together hold {stage.held / GIB:.1f} GiB of {stage.available / GIB:.1f} GiB"
    sampler = next((plan for plan in plans if plan.program.learner is None), None)
    slots = _slots(config, sampler, stage.held - stage.available) if sampler else 0
    if slots:
        return f"{over}: set --config.engine.num_slots={slots} (estimate)"
    return f"{over}: split the learner over more chips, raise engine.tensor, or lower engine.max_length"


def _slots(config: LearnerSettings, plan: Plan, too_much: float) -> int:
    """Number of slots that remain when enough caches are removed to free this many bytes."""
    cache = bytes_per_chip(plan.program.arguments[1])
    return max(0, int(config.engine.num_slots * (1 - too_much / cache)))
