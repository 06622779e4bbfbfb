"""From programs to a job: time of a step of SFT or GRPO, and samples per day. All are estimates.

Rollouts and learning run one after the other, as in GRPO without `overlap`. Tools, judge and data are not included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.planning.abstract import bytes_per_chip
from mmsearch_jax.planning.analyse import Plan
from mmsearch_jax.settings.commands import GRPOSettings, LearnerSettings, SFTSettings

_DAY = 86400


@dataclasses.dataclass(frozen=True)
class Assumed:
    """Tokens per sample, how many of them are sampled (GRPO), and the price of a device in dollars per hour (0: unknown)."""

    sample_tokens: int = 3000
    sampled_tokens: int = 800
    price: float = 0.0


@dataclasses.dataclass(frozen=True)
class StageEstimate:
    """Attributes:
    learn_seconds, rollout_seconds: per step; None if the programs were not planned or do not fit.
    samples_per_day: conversations (SFT) or trajectories (GRPO).
    num_steps: of the config.
    hours, dollars: of all steps; None as above, and dollars without a price.
    held: bytes that learner and sampler keep on a chip together, plus the most that one of their programs adds.
    """

    stage: str
    learn_seconds: float | None
    rollout_seconds: float | None
    samples_per_day: float | None
    held: float
    available: float
    num_steps: int
    hours: float | None
    dollars: float | None

    @property
    def fits(self) -> bool:
        """Whether learner and sampler fit on the same chips."""
        return self.held <= self.available


def stage_estimates(
    config: LearnerSettings, plans: Sequence[Plan], topology: Topology, assumed: Assumed
) -> list[StageEstimate]:
    """Estimates of the stages whose programs are among the plans."""
    made = []
    for stage in ("sft", "grpo"):
        own = [plan for plan in plans if plan.program.name.startswith(f"{stage} ")]
        if not own:
            continue
        learn = None
        if all(plan.seconds is not None for plan in own):
            learn = sum(plan.program.times * (plan.seconds or 0.0) for plan in own)
        if stage == "sft":
            recipe = cast(SFTSettings, config).sft
            samples = recipe.batch.rows * recipe.batch.length * recipe.accumulate / assumed.sample_tokens
            cost = _cost(recipe.num_steps, learn, topology, assumed)
            made.append(
                StageEstimate(stage, learn, None, _per_day(samples, learn), _held(own), own[0].available, *cost)
            )
            continue
        sampler = {plan.program.name: plan for plan in plans if plan.program.learner is None}
        recipe = cast(GRPOSettings, config).grpo
        samples = recipe.prompts_per_step * recipe.group_size
        engines = topology.num_hosts * config.engine.groups_on(topology.host.num_devices)
        rollout = _rollout_seconds(sampler, samples / engines, assumed) if engines else None
        together = None if learn is None or rollout is None else learn + rollout
        held = _held([*own, *sampler.values()])
        cost = _cost(recipe.num_steps, together, topology, assumed)
        made.append(StageEstimate(stage, learn, rollout, _per_day(samples, together), held, own[0].available, *cost))
    return made


def _rollout_seconds(sampler: dict[str, Plan], share: float, assumed: Assumed) -> float | None:
    """Every engine samples its share; tokens that are not sampled are fed."""
    decode, feed = sampler.get("decode"), sampler.get("extend") or sampler.get("prefill")
    if decode is None or feed is None or not decode.seconds or not feed.seconds:
        return None
    sampled = share * assumed.sampled_tokens / (decode.program.work.tokens / decode.seconds)
    fed = share * (assumed.sample_tokens - assumed.sampled_tokens) / (feed.program.work.tokens / feed.seconds)
    return sampled + fed


def _held(plans: Sequence[Plan]) -> float:
    """Resident arguments of learner and sampler, plus the largest remainder of a program."""
    stays = 0.0
    learner = next((plan.program for plan in plans if plan.program.learner is not None), None)
    sampler = next((plan.program for plan in plans if plan.program.learner is None), None)
    if learner is not None and learner.learner is not None:
        stays += bytes_per_chip(
            (learner.learner.state.params, learner.learner.state.frozen, learner.learner.state.opt_state)
        )
    if sampler is not None:
        stays += bytes_per_chip(sampler.arguments[:3])
    rest = [plan.memory.temporaries + plan.memory.output for plan in plans if plan.memory is not None]
    return stays + max(rest, default=0.0)


def _cost(
    num_steps: int, seconds: float | None, topology: Topology, assumed: Assumed
) -> tuple[int, float | None, float | None]:
    """Number of steps, their hours and dollars."""
    hours = None if seconds is None else num_steps * seconds / 3600
    dollars = hours * topology.num_chips * assumed.price if hours is not None and assumed.price else None
    return num_steps, hours, dollars


def _per_day(samples: float, seconds: float | None) -> float | None:
    return samples * _DAY / seconds if seconds else None
