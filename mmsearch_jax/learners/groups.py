"""From trajectories to training data: rewards, groups, advantages, and metrics of a step's rollouts.

It works on trajectories and rows, without models or devices.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmsearch_jax.core.trajectory import SearchKind, Trajectory
from mmsearch_jax.data.rows import Row
from mmsearch_jax.distributed.processes import largest_of_all, records_of_all, sums_of_all
from mmsearch_jax.learners.advantages import group_advantages


class Groups(NamedTuple):
    """The training data from one batch of rollouts.

    Attributes:
      learnt: trajectories with their advantages.
      num_useful: number of groups among them whose rewards differ.
      num_uniform: number of groups whose rewards are all equal.
    """

    learnt: list[tuple[Trajectory, float]]
    num_useful: int
    num_uniform: int


def group(
    trajectories: Sequence[Trajectory],
    *,
    min_group: int = 2,
    skip_uniform: bool = True,
    normalise_std: bool = False,
    at_most: int | None = None,
) -> Groups:
    """Compares scored trajectories within their groups.

    Args:
      min_group: groups with fewer scored trajectories are left out.
      skip_uniform: also leave out groups whose rewards are all equal.
      at_most: number of useful groups to take; the first ones are taken.
    """
    members: dict[str, list[Trajectory]] = collections.defaultdict(list)
    for trajectory in trajectories:
        if trajectory.reward is not None:
            members[trajectory.group_id].append(trajectory)
    whole = {name: found for name, found in members.items() if len(found) >= min_group}
    uniform = {name for name, found in whole.items() if len({member.reward for member in found}) == 1}
    useful = [name for name in whole if name not in uniform][:at_most]
    taken = [name for name in whole if name in useful or (name in uniform and not skip_uniform)]
    used = [trajectory for name in taken for trajectory in whole[name]]
    advantages = group_advantages([t.reward or 0.0 for t in used], [t.group_id for t in used], normalise_std)
    return Groups(list(zip(used, map(float, advantages), strict=True)), len(useful), len(uniform))


def rollout_metrics(trajectories: Sequence[Trajectory], rows: Mapping[str, Row]) -> dict[str, Any]:
    """Metrics of the step's rollouts over all processes (a collective: every process must call it)."""
    told = [entry for entries in records_of_all([_entry(t, rows[t.row_id]) for t in trajectories]) for entry in entries]
    sound = [entry for entry in told if "reward" in entry]

    def mean(name: str, among: Sequence[Mapping[str, Any]] = sound) -> float:
        return float(np.mean([entry[name] for entry in among])) if among else 0.0

    parts = sorted({name for entry in sound for name in entry["parts"]})
    statuses = collections.Counter(entry["status"] for entry in told)
    return {
        "reward": mean("reward"),
        "accuracy": float(np.mean([entry["parts"]["match"] for entry in sound])) if sound else 0.0,
        **{
            f"reward_{name}": float(np.mean([entry["parts"].get(name, 0.0) for entry in sound]))
            for name in parts
            if name not in ("match", "searched")
        },
        "searches": mean("searches"),
        "text_searches": mean("text"),
        "whole_image_searches": mean("whole"),
        "crop_searches": mean("crop"),
        "needless_searches": mean("searched", [entry for entry in sound if not entry["required"]]),
        "turns": mean("turns"),
        "sampled_tokens": mean("sampled"),
        "tokens": mean("tokens"),
        "longest": max((entry["tokens"] for entry in told), default=0),
        "dropped": len(told) - len(sound),
        **{f"status_{name}": count for name, count in statuses.items()},
    }


def step_totals(
    groups: Groups, trajectories: Sequence[Trajectory], seconds: float, too_long: int = 0
) -> dict[str, float]:
    """Groups and sampling speed of a step over all processes (a collective: every process must call it).

    Args:
      seconds: that this process's rollouts took; the slowest process counts.
      too_long: number of this process's trajectories that do not fit into a batch.
    """
    totals = sums_of_all(
        {
            "useful_groups": groups.num_useful,
            "uniform_groups": groups.num_uniform,
            "too_long": too_long,
            "sampled": sum(trajectory.num_sampled for trajectory in trajectories),
        }
    )
    sampled = totals.pop("sampled")
    return totals | {"tokens_per_second": sampled / max(records_of_all(seconds))}


def held_out_metrics(trajectories: Sequence[Trajectory], rows: Mapping[str, Row]) -> dict[str, Any]:
    """Metrics of held-out episodes over all processes (a collective: every process must call it).

    Shares and means are over scored episodes ("eval_rows"); they are absent if there are none.
    """
    told = [entry for entries in records_of_all([_entry(t, rows[t.row_id]) for t in trajectories]) for entry in entries]
    sound = [entry for entry in told if "reward" in entry]
    counts = {"eval_rows": len(sound), "eval_dropped": len(told) - len(sound)}
    if not sound:
        return counts
    return counts | {
        "eval_accuracy": float(np.mean([entry["parts"]["match"] for entry in sound])),
        "eval_reward": float(np.mean([entry["reward"] for entry in sound])),
        "eval_search_rate": float(np.mean([entry["searched"] for entry in sound])),
        "eval_searches": float(np.mean([entry["searches"] for entry in sound])),
    }


def every_episode_failed(trajectories: Sequence[Trajectory]) -> bool:
    """Whether every episode of every process failed, so that none evaluates the policy (a collective: all must call it)."""
    return not largest_of_all(sum(not trajectory.infrastructure_failure for trajectory in trajectories))


def _entry(trajectory: Trajectory, row: Row) -> dict[str, Any]:
    entry: dict[str, Any] = {"status": trajectory.status, "tokens": len(trajectory.token_ids)}
    if trajectory.reward is None:
        return entry
    calls = trajectory.tool_calls()
    return entry | {
        "reward": trajectory.reward,
        "parts": trajectory.reward_parts,
        "required": row.search_required,
        "searches": len(calls),
        "searched": float(bool(calls)),
        "text": sum(call.kind == SearchKind.TEXT for call in calls),
        "whole": sum(call.kind == SearchKind.WHOLE_IMAGE for call in calls),
        "crop": sum(call.kind == SearchKind.CROP for call in calls),
        "turns": len(trajectory.turns),
        "sampled": trajectory.num_sampled,
    }
