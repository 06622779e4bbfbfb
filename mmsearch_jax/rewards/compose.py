"""The reward of a trajectory: R = (1 - l) * s + l * s_fmt (DeepMMSearch-R1, sec. 3.2).

s is 0 or 1 from the answer match, s_fmt is 0 or 1 for a well-formed episode. An optional factor on s for
episodes that searched follows MMSearch-R1. It knows trajectories, and nothing of groups or advantages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from mmsearch_jax.protocol import Answer, Invalid
from mmsearch_jax.rewards import match
from mmsearch_jax.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """`format_weight` is l; `search_penalty` takes that share from s when any search was made (0.1 in
    MMSearch-R1, 0 in DeepMMSearch-R1)."""

    format_weight: float = 0.1
    search_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("format_weight", "search_penalty"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


def well_formed(trajectory: Trajectory) -> bool:
    """Whether the policy kept to the grammar and the limits in every turn, and ended with an answer.

    Only what the policy wrote counts, so any legal number of searches can earn it.
    """
    turns = trajectory.turns
    if not turns or trajectory.status != "answered" or not isinstance(turns[-1].action, Answer):
        return False
    refused = any(turn.tool is not None and turn.tool.refused for turn in turns)
    return not refused and not any(isinstance(turn.action, Invalid) for turn in turns)


def reward(
    trajectory: Trajectory, answers: Iterable[str], config: RewardConfig | None = None
) -> tuple[float, dict[str, float]]:
    """The reward in [0, 1] and its parts ("match", "format", "searched").

    Raises:
      ValueError: the episode broke through no fault of the policy (`trajectory.infrastructure_failure`), or
        has not ended; such a trajectory is dropped, never scored.
    """
    config = config or RewardConfig()
    if trajectory.infrastructure_failure or trajectory.status == "running":
        raise ValueError(f"trajectory {trajectory.id} ended as {trajectory.status}: drop it, do not score it")
    answered = trajectory.status == "answered" and match.matches(trajectory.answer, answers)
    searched = bool(trajectory.tool_calls())
    score = float(answered) * (1.0 - config.search_penalty if searched else 1.0)
    form = float(well_formed(trajectory))
    total = (1.0 - config.format_weight) * score + config.format_weight * form
    return total, {"match": float(answered), "format": form, "searched": float(searched)}
