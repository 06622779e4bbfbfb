"""The reward of a trajectory: R = (1 - l) * s + l * s_fmt (DeepMMSearch-R1, sec. 3.2).

s is 0 or 1 from the answer match or from an LLM judge; s_fmt is 1 for a well-formed episode, else 0. Options: a factor
on s for episodes with a search (MMSearch-R1), and DAPO's soft penalty for overlong ones. Groups and advantages are not
handled here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from mmsearch_jax.core.errors import ConfigError, JudgeFailed
from mmsearch_jax.core.protocol import Answer, Invalid
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.data.rows import Row
from mmsearch_jax.rewards import match
from mmsearch_jax.rewards.judge import Judge
from mmsearch_jax.settings.learning import JudgeConfig, RewardConfig


def well_formed(trajectory: Trajectory) -> bool:
    """Whether every turn of the policy kept to the grammar and the limits, and the episode ended with an answer.

    Only the policy's own text counts, so the number of searches does not matter as long as it is allowed.
    """
    turns = trajectory.turns
    if not turns or trajectory.status != Status.ANSWERED or not isinstance(turns[-1].action, Answer):
        return False
    refused = any(turn.tool is not None and turn.tool.refused for turn in turns)
    return not refused and not any(isinstance(turn.action, Invalid) for turn in turns)


def overlong_penalty(num_tokens: int, max_tokens: int, buffer: int) -> float:
    """The soft penalty: 0 before the buffer, then linearly down to -1 at the limit."""
    if not buffer:
        return 0.0
    return -min(1.0, max(0.0, (num_tokens - (max_tokens - buffer)) / buffer))


def reward(
    trajectory: Trajectory,
    answers: Iterable[str],
    config: RewardConfig | None = None,
    *,
    judged: bool | None = None,
    max_tokens: int = 0,
) -> tuple[float, dict[str, float]]:
    """The reward in [-1, 1] and its parts ("match", "format", "searched", and the options' parts).

    Args:
      judged: the judge's verdict; None if no judge was asked.
      max_tokens: the token limit of a trajectory, where `overlong_buffer` ends.

    Raises:
      ValueError: the episode has not ended, or ended with an infrastructure failure
        (`trajectory.infrastructure_failure`); such a trajectory is dropped, never scored.
    """
    config = config or RewardConfig()
    if trajectory.infrastructure_failure or trajectory.status == Status.RUNNING:
        raise ValueError(f"trajectory {trajectory.id} ended as {trajectory.status}: drop it, do not score it")
    exact = trajectory.status == Status.ANSWERED and match.matches(trajectory.answer, answers)
    answered = exact
    if judged is not None:
        answered = judged or (config.match == "exact_or_judge" and exact)
    searched = bool(trajectory.tool_calls())
    score = float(answered) * (1.0 - config.search_penalty if searched else 1.0)
    form = float(well_formed(trajectory))
    total = (1.0 - config.format_weight) * score + config.format_weight * form
    parts = {"match": float(answered), "format": form, "searched": float(searched)}
    if judged is not None:
        parts["judge_agrees_with_exact"] = float(judged == exact)
    if config.overlong_buffer:
        parts["overlong"] = overlong_penalty(len(trajectory.token_ids), max_tokens, config.overlong_buffer)
        total += parts["overlong"]
    return total, parts


class Scorer:
    """Computes the rewards of trajectories, with a judge if the config asks for one.

    Args:
      max_tokens: the token limit of a trajectory, where `overlong_buffer` ends.

    Raises:
      ConfigError: `match` needs a judge, but no judge is configured.
    """

    def __init__(self, config: RewardConfig, judge: JudgeConfig | None = None, max_tokens: int = 0):
        self._config, self._max_tokens = config, max_tokens
        self._judge = Judge(judge) if config.match != "exact" and judge is not None and judge.url else None
        if config.match != "exact" and self._judge is None:
            raise ConfigError(f"reward.match is '{config.match}', but judge.url is empty: give the judge's endpoint")

    async def score(self, trajectories: Sequence[Trajectory], rows: Mapping[str, Row]) -> None:
        """Sets `reward` and `reward_parts` of all trajectories that can be scored.

        Infrastructure failures get no reward. If the judge gives no verdict, the status becomes "judge_failed".
        """
        await asyncio.gather(*(self._score(t, rows[t.row_id]) for t in trajectories if not t.infrastructure_failure))

    async def close(self) -> None:
        """Closes the judge's connections."""
        if self._judge is not None:
            await self._judge.close()

    async def _score(self, trajectory: Trajectory, row: Row) -> None:
        try:
            judged = await self._verdict(trajectory, row)
        except JudgeFailed as error:
            trajectory.status, trajectory.error = Status.JUDGE_FAILED, str(error)
            return
        trajectory.reward, trajectory.reward_parts = reward(
            trajectory, row.answers, self._config, judged=judged, max_tokens=self._max_tokens
        )

    async def _verdict(self, trajectory: Trajectory, row: Row) -> bool | None:
        answer = trajectory.answer
        if self._judge is None or trajectory.status != Status.ANSWERED or not answer:
            return None
        if self._config.match == "exact_or_judge" and match.matches(answer, row.answers):
            return None
        return await self._judge.correct(row.question, row.answers, answer)
