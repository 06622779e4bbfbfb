"""Who answers: one small interface over our engine and over a model that is served elsewhere.

Both play the same episodes with the same tools; what differs is who writes the turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mmsearch_jax.core.trajectory import OBSERVATION, PROMPT, SAMPLED, Trajectory
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes_sync
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.rollout import EpisodeConfig


class Outcome(NamedTuple):
    """An episode that ended: its lengths by name (tokens, turns), and what the policy itself cost in dollars."""

    trajectory: Trajectory
    lengths: dict[str, int]
    cost_usd: float = 0.0


class EvaluatedPolicy(Protocol):
    """Plays episodes."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells it from others: plain values, equal exactly where the answers would be."""
        ...

    def play(
        self,
        requests: Sequence[EpisodeRequest],
        rules: EpisodeConfig,
        tools: ToolClient | None,
        ended: Callable[[Outcome], None],
        stop: Callable[[], bool],
    ) -> None:
        """Plays the episodes, several at a time, and tells of each as it ends.

        Args:
          tools: closed at the end; may be None where no episode calls any.
          stop: asked before an episode is begun; once it says so, none is begun any more.
        """
        ...


class EnginePolicy:
    """A policy in our engine.

    Args:
      make_engine: the engine for episodes of these rules; called when the rules' length is new.
      identity: see `EvaluatedPolicy.identity`.
    """

    def __init__(self, make_engine: Callable[[EpisodeConfig], Engine], identity: Mapping[str, Any]):
        self._make_engine, self.identity = make_engine, identity
        self._engine: Engine | None = None
        self._length = 0

    def play(
        self,
        requests: Sequence[EpisodeRequest],
        rules: EpisodeConfig,
        tools: ToolClient | None,
        ended: Callable[[Outcome], None],
        stop: Callable[[], bool],
    ) -> None:
        """See `EvaluatedPolicy.play`."""
        if self._engine is None or self._length != rules.max_trajectory_tokens:
            # The old caches are given back before new ones are made.
            self._engine = None
            self._engine, self._length = self._make_engine(rules), rules.max_trajectory_tokens

        def told(trajectory: Trajectory) -> None:
            ended(Outcome(trajectory, lengths(trajectory)))

        run_episodes_sync(self._engine, requests, rules, tools, told, stop=stop)


def lengths(trajectory: Trajectory) -> dict[str, int]:
    """Tokens by where they came from, and turns."""
    names = {"prompt": PROMPT, "sampled": SAMPLED, "observation": OBSERVATION}
    counts = {name: trajectory.provenance.count(source) for name, source in names.items()}
    return {**counts, "turns": len(trajectory.turns)}
