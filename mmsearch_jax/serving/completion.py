"""The replies to one request during generation: the scheduler's updates become deltas in a queue."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.rollout.live_episode import LiveEpisode
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.serving.requests import ApiError
from mmsearch_jax.serving.text import TextStream


@dataclasses.dataclass(frozen=True)
class Token:
    """A sampled token: its bytes, its natural log-prob (`Trajectory.logprobs`), and those of the most probable tokens there."""

    data: bytes
    logprob: float
    tops: tuple[Token, ...] = ()


@dataclasses.dataclass(frozen=True)
class Delta:
    """An addition to choice `index`. The last delta of a choice has a `finish` ("stop" or "length").

    `reasoning` holds turns and observations of a search episode. `episode`, in its last delta, is the episode's record.
    """

    index: int
    text: str = ""
    tokens: tuple[Token, ...] = ()
    reasoning: str = ""
    episode: dict[str, Any] | None = None
    finish: str | None = None


@dataclasses.dataclass
class Usage:
    """Numbers of prompt and completion tokens so far."""

    prompt: int = 0
    sampled: int = 0


Emit = Callable[[Delta | ApiError], None]


class ChatChoice:
    """Watches a plain chat and emits its deltas."""

    def __init__(
        self,
        index: int,
        renderer: ChatRenderer,
        stop: Sequence[str],
        emit: Emit,
        cancel: Callable[[LiveEpisode], None],
        usage: Usage,
    ):
        self._index, self._renderer, self._emit, self._cancel, self._usage = index, renderer, emit, cancel, usage
        self._stream = TextStream(renderer.token_bytes, stop)
        self._seen, self._finished = 0, False

    def __call__(self, run: LiveEpisode) -> None:
        """Emits what has changed (see `LiveEpisode.watch`)."""
        if self._finished:
            return
        text, tokens = "", []
        for place in range(self._seen, len(run.sequence.new_ids)):
            token_id = run.sequence.new_ids[place]
            self._seen, self._usage.sampled = place + 1, self._usage.sampled + 1
            text += self._stream.feed(token_id)
            if self._stream.stopped:
                break
            # Control tokens have no text.
            if self._renderer.token_bytes[token_id]:
                tokens.append(self._token(run.sequence, place))
        finish = None
        if self._stream.stopped:
            finish = "stop"
            self._cancel(run)
        elif run.episode.done:
            text += self._stream.end()
            finish = "length" if run.episode.trajectory.status == Status.OVERLONG else "stop"
        if text or tokens or finish:
            self._finished = finish is not None
            self._emit(Delta(self._index, text, tuple(tokens), finish=finish))

    def _token(self, sequence: LiveSequence, place: int) -> Token:
        tops = sequence.new_tops[place] if sequence.new_tops else []
        best = tuple(Token(self._spelling(token_id), logprob) for token_id, logprob in tops)
        return Token(self._spelling(sequence.new_ids[place]), sequence.new_logprobs[place], best)

    def _spelling(self, token_id: int) -> bytes:
        """The bytes of a token; a control token's name, and nothing for an id that the tokenizer does not have."""
        table = self._renderer.token_bytes
        return (table[token_id] if token_id < len(table) else b"") or self._renderer.decode([token_id]).encode()


class EpisodeChoice:
    """Watches a search episode and emits each turn and observation when it is complete, then the answer.

    Args:
      unanswered: the text of an episode without an answer.
    """

    def __init__(self, index: int, emit: Emit, usage: Usage, unanswered: str):
        self._index, self._emit, self._usage, self._unanswered = index, emit, usage, unanswered
        self._shown = ""
        self._finished = False

    def __call__(self, run: LiveEpisode) -> None:
        """Emits what has changed (see `LiveEpisode.watch`)."""
        trajectory = run.episode.trajectory
        written = transcript(trajectory)
        reasoning, self._shown = written[len(self._shown) :], written
        if not run.episode.done:
            if reasoning:
                self._emit(Delta(self._index, reasoning=reasoning))
            return
        if self._finished:
            return
        self._finished = True
        self._usage.sampled += trajectory.num_sampled
        self._usage.prompt += len(trajectory.token_ids) - trajectory.num_sampled
        if trajectory.infrastructure_failure:
            message = f"the search episode ended with status {trajectory.status}: {trajectory.error}"
            self._emit(ApiError(502, message, kind="server_error", code=trajectory.status))
            return
        finish = "length" if trajectory.status == Status.OVERLONG else "stop"
        self._emit(
            Delta(
                self._index,
                trajectory.answer or self._unanswered,
                reasoning=reasoning,
                episode=record(trajectory),
                finish=finish,
            )
        )


def transcript(trajectory: Trajectory) -> str:
    """The turns and observations so far, joined by line breaks."""
    parts = [part for turn in trajectory.turns for part in (turn.text, turn.observation) if part]
    return "".join(f"{part}\n" for part in parts)


def record(trajectory: Trajectory) -> dict[str, Any]:
    """The client's record of an episode: status, error, and the tool calls with their results."""
    calls = [
        {
            "tool": tool.tool,
            "query": tool.query,
            "box": tool.box,
            "grounded": tool.grounded,
            "refused": tool.refused,
            "results": [{"title": result.title, "url": result.url} for result in tool.results],
        }
        for turn in trajectory.turns
        if (tool := turn.tool) is not None
    ]
    return {"status": trajectory.status, "error": trajectory.error, "calls": calls}


class Completion:
    """All choices of one request; `deltas` may be iterated over only once."""

    def __init__(self, usage: Usage):
        self.usage = usage
        self.runs: list[LiveEpisode] = []
        self._queue: asyncio.Queue[Delta | ApiError] = asyncio.Queue()

    def emit(self, event: Delta | ApiError) -> None:
        """Queues a delta or an error; an error ends the completion."""
        self._queue.put_nowait(event)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Yields deltas until every choice has finished.

        Raises:
          ApiError: a search or the engine failed.
        """
        left = len(self.runs)
        while left:
            event = await self._queue.get()
            if isinstance(event, ApiError):
                raise event
            left -= event.finish is not None
            yield event
