"""A policy at an OpenAI-compatible endpoint (vLLM, SGLang, `mmsearch serve`, hosted models).

It plays the same episodes as our engine (see `rollout.endpoint_episode`). The endpoint's tokenizer is not known, so
lengths are counted in pieces of four characters, which is about one token of English.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmsearch_jax.core.chat_client import ChatClient, ChatReply
from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.errors import ChatFailed, ToolError
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.evaluation.policies import Outcome, lengths
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.rollout.endpoint_episode import TextPieces, Transcript, cut_turn, play_episode
from mmsearch_jax.rollout.episode import Episode, Generation
from mmsearch_jax.rollout.scheduler import EpisodeRequest
from mmsearch_jax.rollout.tool_client import ToolClient, Tools
from mmsearch_jax.settings.rollout import EpisodeConfig


@dataclasses.dataclass(frozen=True)
class Prices:
    """Dollars per million tokens."""

    prompt: float = 0.0
    reply: float = 0.0

    def of(self, reply: ChatReply) -> float:
        """The cost of a reply in dollars."""
        return (self.prompt * (reply.num_tokens - reply.reply_tokens) + self.reply * reply.reply_tokens) / 1e6


class ServedPolicy:
    """Plays episodes with the model at an endpoint.

    Args:
      endpoint: the model's endpoint. Its `max_concurrency` also limits the number of parallel episodes. Each turn's
        `max_tokens` and the temperature come from the episode.
      prices: prices of the endpoint's tokens.
    """

    def __init__(self, endpoint: ChatEndpoint, prices: Prices = Prices()):
        self._endpoint, self._prices = endpoint, prices
        self.processor = ImageProcessor()

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name; the endpoint's address is not part of it."""
        return {"kind": "endpoint", "model": self._endpoint.model}

    def play(
        self,
        requests: Sequence[EpisodeRequest],
        rules: EpisodeConfig,
        tools: ToolClient | None,
        ended: Callable[[Outcome], None],
        stop: Callable[[], bool],
    ) -> None:
        """See `policies.EvaluatedPolicy.play`."""
        waiting = iter(requests)

        async def main() -> None:
            chat = ChatClient(self._endpoint, "served policy", "turn")
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._endpoint.max_concurrency, len(requests))):
                        group.create_task(self._work(waiting, rules, chat, tools, ended, stop))
            finally:
                await chat.close()
                if tools is not None:
                    await tools.close()

        asyncio.run(main())

    async def _work(
        self,
        waiting: Iterator[EpisodeRequest],
        rules: EpisodeConfig,
        chat: ChatClient,
        tools: ToolClient | None,
        ended: Callable[[Outcome], None],
        stop: Callable[[], bool],
    ) -> None:
        while not stop() and (request := next(waiting, None)) is not None:
            ended(await self._episode(request, rules, chat, request.tools or tools))

    async def _episode(
        self, request: EpisodeRequest, rules: EpisodeConfig, chat: ChatClient, tools: Tools | None
    ) -> Outcome:
        began, cost = time.monotonic(), 0.0
        trajectory = Trajectory(request.row_id, request.row_id, request.group_id, request.seed)
        transcript = Transcript(TextPieces(), request.image or None)
        episode = Episode(trajectory, request.question, [], [], rules, transcript, has_image=bool(request.image))

        async def write_turn(max_tokens: int) -> Generation:
            nonlocal cost
            reply = await chat.ask(transcript.messages, lambda reply: reply, **_settings(request, max_tokens))
            cost += self._prices.of(reply)
            return transcript.turn(*cut_turn(reply, plain=rules.plain))

        try:
            await play_episode(episode, write_turn, tools, request.question, request.image)
        except ChatFailed as error:
            episode.fail(Status.POLICY_FAILED, str(error))
        except ToolError as error:
            episode.fail(Status.TOOL_FAILED, str(error))
        trajectory.seconds = time.monotonic() - began
        return Outcome(_without_pieces(trajectory), lengths(trajectory), cost)


def _settings(request: EpisodeRequest, max_tokens: int) -> dict[str, Any]:
    temperature = request.sampling.temperature
    sampling: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    return sampling | ({"seed": request.seed} if temperature else {})


def _without_pieces(trajectory: Trajectory) -> Trajectory:
    """The record without its token ids, which belong to no tokenizer."""
    turns = [dataclasses.replace(turn, start=0, end=0) for turn in trajectory.turns]
    return dataclasses.replace(trajectory, token_ids=[], provenance=[], logprobs=[], turns=turns)
