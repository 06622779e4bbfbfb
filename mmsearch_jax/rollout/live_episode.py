"""The scheduler's unit: a request, the state machine that decides its next step, and its sequence in the engine."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Protocol

from mmsearch_jax.core.protocol import ImageSearch, TextSearch
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.rollout.episode import CallTool, Done, Generation, Need
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.rollout.tool_client import Tools

Watch = Callable[["LiveEpisode"], None]


@dataclasses.dataclass(frozen=True)
class EpisodeRequest:
    """One episode to run. Requests of one group differ only in `seed`; their prompt is prefilled once. `tools`, if given,
    replaces the scheduler's for this episode. `image` is encoded; b"" if the question has none."""

    row_id: str
    group_id: str
    question: str
    image: bytes
    seed: int = 0
    sampling: SamplingParams = SamplingParams()
    tools: Tools | None = None


class Driver(Protocol):
    """The state machine of a run: an `Episode`, or a `rollout.chat.Chat`."""

    trajectory: Trajectory

    @property
    def done(self) -> bool: ...
    def begin(self) -> Need: ...
    def generated(self, generation: Generation) -> Need: ...
    def observed(self, action: TextSearch | ImageSearch, reply: SearchReply) -> Need: ...
    def fail(self, status: Status, error: str) -> Done: ...


@dataclasses.dataclass(eq=False)
class LiveEpisode:
    """An episode with its sequence in the engine.

    `watch` is called on the event loop whenever something has changed: tokens of a turn in progress (`sequence.new_ids`), a
    turn, an observation, the end. A run whose `cancelled` is set ends before the next device call.
    """

    request: EpisodeRequest
    episode: Driver
    sequence: LiveSequence
    started: float | None = None
    watch: Watch | None = None
    cancelled: bool = False
    task: asyncio.Task[SearchReply] | None = None
    call: CallTool | None = None
    called: float = 0.0

    @property
    def parked(self) -> bool:
        return self.task is not None
