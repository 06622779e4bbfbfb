"""The agent's state machine: what one episode needs next, given what just happened.

Pure: no clock, network, device or randomness. It decides limits, budgets, observations and endings, and
appends to the `Trajectory`. It does not depend on what generates tokens (`rollout.engine`, an endpoint) or what calls tools
(`rollout.tool_client`).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol

from mmsearch_jax.core import protocol, search_api
from mmsearch_jax.core.protocol import Answer, ImageSearch, Invalid, TextSearch
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.core.trajectory import OBSERVATION, PROMPT, Status, ToolRecord, Trajectory, Turn
from mmsearch_jax.settings.rollout import EpisodeConfig

MODES = ("policy", "prompted", "direct", "rag")


# Characters of text that one token can hold at most: Qwen's longest token has 128 bytes, and its normaliser (NFC) composes at
# most four characters into one.
_LONGEST_TOKEN = 512


class Renderer(Protocol):
    """The part of `data.chat.ChatRenderer` that an episode uses; `endpoint_episode` has other implementations."""

    im_end: int

    def encode(self, text: str) -> list[int]:
        """Plain text to ids."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids to text."""
        ...

    def prompt_ids(self, text: str, image_token_counts: Sequence[int] = ()) -> list[int]:
        """The conversation up to the start of the policy's message."""
        ...

    def observation_ids(self, text: str, *, closed: bool = False) -> list[int]:
        """The tokens between two turns."""
        ...


@dataclasses.dataclass(frozen=True)
class Generate:
    """The policy must write a turn of at most `max_tokens` tokens, after all tokens of the trajectory."""

    max_tokens: int


@dataclasses.dataclass(frozen=True)
class CallTool:
    """A tool must be called; `action` says which one and with what arguments."""

    action: TextSearch | ImageSearch
    top_k: int


@dataclasses.dataclass(frozen=True)
class Done:
    """The trajectory is complete; its status says how it ended."""


Need = Generate | CallTool | Done


class Finish(enum.StrEnum):
    """Why a turn ended."""

    CLOSED = "closed"
    """By a closing tag, or as a complete message of an endpoint."""
    STOP = "stop"
    """By a sampled control token, which is the last id."""
    LENGTH = "length"
    """By its token limit."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """A turn as the engine sampled it.

    Attributes:
      token_ids, logprobs: the sampled tokens, in order.
      forced_ids: tokens that the host appends to complete a closing tag exactly (nearly always empty).
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    finish: Finish
    forced_ids: Sequence[int] = ()


def observe(
    config: EpisodeConfig,
    renderer: Renderer,
    action: TextSearch | ImageSearch | Invalid,
    results: Sequence[search_api.SearchResult] | None,
    note: str | None = None,
    summary: str | None = None,
) -> tuple[str, str]:
    """The observation, and the user text that the policy reads: the observation followed by the later prompt."""

    budget = config.observation_max_tokens

    def fits(text: str) -> bool:
        # A page of megabytes is not encoded only to learn that it is too long: that would stop all other episodes.
        return len(text) <= budget * _LONGEST_TOKEN and len(renderer.encode(text)) <= budget

    observation = protocol.render_observation(results, note, fits=fits, summary=summary)
    later = protocol.later_prompt(action, config.prompt_style) if not config.plain else ""
    return observation, observation + later


def _reply_note(action: TextSearch | ImageSearch, reply: SearchReply) -> str | None:
    """The note in the observation: the server's own note, or that an expression was not found."""
    if reply.note:
        return reply.note
    crop_missed = isinstance(action, ImageSearch) and action.expression is not None and not reply.grounded
    return protocol.NOT_FOUND_NOTE if crop_missed else None


class Episode:
    """One episode, driven by its caller: each method takes what happened and returns what is needed next.

    Args:
      has_image: whether the question has an image; without one, image search is not offered.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        question: str,
        image_grids: Sequence[tuple[int, int, int]],
        image_token_counts: Sequence[int],
        config: EpisodeConfig,
        renderer: Renderer,
        *,
        has_image: bool = True,
    ):
        self.trajectory, self.config, self._has_image = trajectory, config, has_image
        self._question, self._renderer = question, renderer
        self._counts = list(image_token_counts)
        trajectory.image_grids = list(image_grids)

    @property
    def done(self) -> bool:
        """Whether the trajectory is complete."""
        return self.trajectory.status != Status.RUNNING

    def begin(self) -> Need:
        """The first need: a generation, or the first forced search of the RAG workflow."""
        style = self.config.prompt_style
        if self.config.mode == "rag":
            return self._call("", None, ImageSearch(None) if self._has_image else TextSearch(self._question), 0)
        make = protocol.direct_prompt if self.config.mode == "direct" else protocol.first_turn_prompt
        return self._prompt(make(self._question, style))

    def generated(self, generation: Generation) -> Need:
        """Takes the turn that the policy wrote."""
        start = len(self.trajectory.token_ids)
        self.trajectory.append_sampled(generation.token_ids, generation.logprobs)
        self.trajectory.append(generation.forced_ids, OBSERVATION)
        written = [*generation.token_ids, *generation.forced_ids]
        stopped = generation.finish == Finish.STOP
        text = self._renderer.decode(written[:-1] if stopped else written)
        if self.config.plain:
            return self._answered_plainly(text, start, generation.finish)
        parsed = protocol.parse_turn(text)
        action = parsed.action
        if generation.finish == Finish.LENGTH:
            action = Invalid("the turn was cut at its token budget")
        elif stopped and not isinstance(action, Invalid):
            action = Invalid("the message ended after the closing tag")
        self._add_turn(text, parsed.reason, action, start)
        if generation.finish == Finish.LENGTH:
            return self._end(Status.OVERLONG)
        if isinstance(action, Answer):
            self.trajectory.answer = action.text
            return self._end(Status.ANSWERED)
        if isinstance(action, Invalid):
            if self.config.on_invalid == "end":
                return self._end(Status.INVALID_ACTION, action.why)
            if self._searches_left() < 0:
                return self._end(Status.NO_ANSWER)
            closed = stopped and generation.token_ids[-1] == self._renderer.im_end
            return self._admit(action, None, protocol.invalid_note(action.why), closed=closed)
        if self._searches_left() < 0:
            return self._end(Status.NO_ANSWER)
        limit = self._limit(action)
        tool = "text_search" if isinstance(action, TextSearch) else "image_search"
        if len(self.trajectory.tool_calls(tool)) >= limit or limit == 0:
            query = action.query if isinstance(action, TextSearch) else action.expression
            self._update_turn(tool=ToolRecord(tool, query, refused=True))
            return self._admit(action, None, protocol.refused_note(action, limit))
        if isinstance(action, ImageSearch) and not self.config.allow_crop:
            action = ImageSearch(None)
        return CallTool(action, self._top_k(action))

    def observed(self, action: TextSearch | ImageSearch, reply: SearchReply) -> Need:
        """Takes the tool's reply to the call that `CallTool` asked for."""
        text = isinstance(action, TextSearch)
        record = ToolRecord(
            tool="text_search" if text else "image_search",
            query=action.query if text else action.expression,
            box=reply.box,
            grounded=reply.grounded,
            results=tuple(reply.results),
            note=reply.note,
            elapsed_ms=reply.elapsed_ms,
            cost_usd=reply.cost_usd,
        )
        self._update_turn(tool=record)
        if self.config.mode == "rag":
            return self._rag_observed(action, reply)
        return self._admit(action, reply.results, _reply_note(action, reply), summary=reply.summary)

    def fail(self, status: Status, error: str) -> Done:
        """Ends the episode from outside, for example at a tool's failure or a deadline."""
        if status == Status.TOOL_FAILED and self.trajectory.turns and self.trajectory.turns[-1].tool is None:
            action = self.trajectory.turns[-1].action
            if isinstance(action, TextSearch):
                self._update_turn(tool=ToolRecord("text_search", action.query, error=error))
            elif isinstance(action, ImageSearch):
                self._update_turn(tool=ToolRecord("image_search", action.expression, error=error))
        return self._end(status, error)

    # Steps --------------------------------------------------------------------------------------------------

    def _prompt(self, text: str) -> Need:
        self.trajectory.append(self._renderer.prompt_ids(text, self._counts), PROMPT)
        return self._generate()

    def _generate(self) -> Need:
        room = self.config.max_trajectory_tokens - len(self.trajectory.token_ids)
        if room <= 0:
            return self._end(Status.OVERLONG, "the prompt fills the trajectory's budget")
        return Generate(min(self.config.max_turn_tokens, room))

    def _admit(
        self,
        action: TextSearch | ImageSearch | Invalid,
        results: Sequence[search_api.SearchResult] | None,
        note: str | None,
        closed: bool = False,
        summary: str | None = None,
    ) -> Need:
        if self._searches_left() == 0 and self.config.say_last_turn:
            note = f"{note} {protocol.LAST_TURN_NOTE}" if note else protocol.LAST_TURN_NOTE
        observation, user_text = observe(self.config, self._renderer, action, results, note, summary)
        ids = self._renderer.observation_ids(user_text, closed=closed)
        if len(self.trajectory.token_ids) + len(ids) >= self.config.max_trajectory_tokens:
            return self._end(Status.OVERLONG, f"an observation of {len(ids)} tokens does not fit")
        self._update_turn(observation=observation)
        self.trajectory.append(ids, OBSERVATION)
        return self._generate()

    def _answered_plainly(self, text: str, start: int, finish: Finish) -> Need:
        answer = text.strip()
        self._add_turn(text, None, Answer(answer) if answer else Invalid("the answer is empty"), start)
        if finish == Finish.LENGTH:
            return self._end(Status.OVERLONG)
        if not answer:
            return self._end(Status.NO_ANSWER)
        self.trajectory.answer = answer
        return self._end(Status.ANSWERED)

    def _call(self, text: str, reason: str | None, action: TextSearch | ImageSearch, start: int) -> Need:
        self._add_turn(text, reason, action, start)
        return CallTool(action, self._top_k(action))

    def _rag_observed(self, action: TextSearch | ImageSearch, reply: SearchReply) -> Need:
        note = _reply_note(action, reply)
        observation, _ = observe(self.config, self._renderer, action, reply.results, note, reply.summary)
        self._update_turn(observation=observation)
        if isinstance(action, ImageSearch):
            title = reply.results[0].title if reply.results else ""
            return self._call("", None, TextSearch(f"{title} {self._question}".strip()), 0)
        observations = [turn.observation for turn in self.trajectory.turns if turn.observation is not None]
        return self._prompt(protocol.rag_prompt(self._question, observations, self.config.prompt_style))

    def _searches_left(self) -> int:
        """Number of remaining turns that may search; -1 after the turn that had to answer."""
        return self.config.max_tool_calls - len(self.trajectory.turns)

    def _limit(self, action: TextSearch | ImageSearch) -> int:
        config = self.config
        if isinstance(action, TextSearch):
            return config.max_text_searches if config.allow_text else 0
        return config.max_image_searches if config.allow_image and self._has_image else 0

    def _top_k(self, action: TextSearch | ImageSearch) -> int:
        return self.config.top_k_text if isinstance(action, TextSearch) else self.config.top_k_image

    def _add_turn(self, text: str, reason: str | None, action: protocol.Action, start: int) -> None:
        end = max(start, len(self.trajectory.token_ids))
        self.trajectory.turns.append(Turn(text, reason, action, start, end))

    def _update_turn(self, **changes) -> None:
        self.trajectory.turns[-1] = dataclasses.replace(self.trajectory.turns[-1], **changes)

    def _end(self, status: Status, error: str | None = None) -> Done:
        self.trajectory.status, self.trajectory.error = status, error
        return Done()
