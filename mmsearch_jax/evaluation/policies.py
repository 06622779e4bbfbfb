"""The evaluated policy: one interface for our engine and for a model at an endpoint.

Both play the same episodes with the same tools; only the source of the turns differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mmsearch_jax.core.trajectory import OBSERVATION, PROMPT, SAMPLED, Trajectory
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.rollout.engine_group import Sampler
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes_sync
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.rollout import EpisodeConfig


class Outcome(NamedTuple):
    """An ended episode: its lengths by name (tokens, turns), and the policy's own cost in dollars."""

    trajectory: Trajectory
    lengths: dict[str, int]
    cost_usd: float = 0.0


class EvaluatedPolicy(Protocol):
    """Plays episodes.

    Attributes:
      processor: by which images are judged; an endpoint's is not known, so it is that of the published checkpoints.
    """

    processor: ImageProcessor

    @property
    def identity(self) -> Mapping[str, Any]:
        """Plain values that identify the policy: they are equal exactly if the answers would be equal."""
        ...

    def play(
        self,
        requests: Sequence[EpisodeRequest],
        rules: EpisodeConfig,
        tools: ToolClient | None,
        ended: Callable[[Outcome], None],
        stop: Callable[[], bool],
    ) -> None:
        """Plays the episodes, several at a time, and calls `ended` with each when it ends.

        Args:
          tools: closed at the end; may be None if no episode calls a tool.
          stop: called before each episode; after it returns True, no further episode begins.
        """
        ...


class EnginePolicy:
    """A policy in our engine.

    Args:
      make_engine: makes the engine for episodes with the given rules; called when their length changes.
      identity: see `EvaluatedPolicy.identity`.
      processor: that of the engine; by default that of the published checkpoints.
    """

    def __init__(
        self,
        make_engine: Callable[[EpisodeConfig], Sampler],
        identity: Mapping[str, Any],
        processor: ImageProcessor | None = None,
    ):
        self._make_engine, self.identity, self.processor = make_engine, identity, processor or ImageProcessor()
        self._engine: Sampler | None = None
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
            # Frees the old caches before new ones are allocated.
            self._engine = None
            self._engine, self._length = self._make_engine(rules), rules.max_trajectory_tokens

        def told(trajectory: Trajectory) -> None:
            ended(Outcome(trajectory, lengths(trajectory)))

        run_episodes_sync(self._engine, requests, rules, tools, told, stop=stop)


def lengths(trajectory: Trajectory) -> dict[str, int]:
    """Number of tokens by provenance, and number of turns."""
    names = {"prompt": PROMPT, "sampled": SAMPLED, "observation": OBSERVATION}
    counts = {name: trajectory.provenance.count(source) for name, source in names.items()}
    return {**counts, "turns": len(trajectory.turns)}
