"""A policy that is served at an OpenAI-compatible endpoint (vLLM, SGLang, `mmsearch serve`, hosted models).

The state machine is the episode's own, fed with text: a `Transcript` takes the place of the chat renderer and keeps messages
where that one makes token ids. Lengths are counted in pieces of four characters, about a token of English.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmsearch_jax.core.chat_client import ChatClient, ChatEndpoint, ChatReply, image_part, text_part
from mmsearch_jax.core.errors import ChatFailed, ToolError
from mmsearch_jax.core.protocol import CLOSING_TAGS
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.evaluation.policies import Outcome, lengths
from mmsearch_jax.rollout.episode import CallTool, Done, Episode, EpisodeConfig, Generate, Generation
from mmsearch_jax.rollout.scheduler import EpisodeRequest
from mmsearch_jax.rollout.tool_client import ToolClient, Tools, call_tool

_PIECE = 4
_ENCODING = "utf-32-le"


@dataclasses.dataclass(frozen=True)
class Prices:
    """Dollars for a million tokens."""

    prompt: float = 0.0
    reply: float = 0.0

    def of(self, reply: ChatReply) -> float:
        """What a reply cost."""
        return (self.prompt * (reply.num_tokens - reply.reply_tokens) + self.reply * reply.reply_tokens) / 1e6


class Transcript:
    """What an episode takes for its renderer: it keeps the conversation as messages.

    Each piece of text has a number that spells it.

    Args:
      image: encoded; shown with the first message.
    """

    im_end = -1
    """Never among the ids: nobody samples a control token here."""

    def __init__(self, image: bytes):
        self.messages: list[dict[str, Any]] = []
        self._image = image

    def encode(self, text: str) -> list[int]:
        """A number for each piece of four characters."""
        pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
        return [int.from_bytes(piece.encode(_ENCODING, "surrogatepass"), "little") for piece in pieces]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `encode`'s numbers."""
        raw = b"".join(number.to_bytes(4 * _PIECE, "little") for number in token_ids)
        return raw.decode(_ENCODING, "surrogatepass").replace("\0", "")

    def prompt_ids(self, text: str, image_token_counts: Sequence[int] = ()) -> list[int]:
        """The first message: the image, then the text."""
        self.messages.append({"role": "user", "content": [image_part(self._image), text_part(text)]})
        return self.encode(text)

    def observation_ids(self, text: str, *, closed: bool = False) -> list[int]:
        """A later message of the user."""
        self.messages.append({"role": "user", "content": text})
        return self.encode(text)


class ServedPolicy:
    """Plays episodes with the model at an endpoint.

    Args:
      endpoint: where; its `max_concurrency` is also how many episodes run at one time. Each turn's `max_tokens` and the
        temperature come from the episode.
      prices: of the endpoint's tokens.
    """

    def __init__(self, endpoint: ChatEndpoint, prices: Prices = Prices()):
        self._endpoint, self._prices = endpoint, prices

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name: where it is served is of no account."""
        return {"kind": "endpoint", "model": self._endpoint.model}

    def play(
        self,
        requests: Sequence[EpisodeRequest],
        rules: EpisodeConfig,
        tools: ToolClient | None,
        ended: Callable[[Outcome], None],
        stop: Callable[[], bool],
    ) -> None:
        """See `policies.Policy.play`."""
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
        transcript = Transcript(request.image)
        episode = Episode(trajectory, request.question, [], [], rules, transcript)
        need = episode.begin()
        while not isinstance(need, Done):
            match need:
                case Generate(max_tokens):
                    try:
                        reply = await chat.ask(
                            transcript.messages, lambda reply: reply, **_settings(request, max_tokens)
                        )
                    except ChatFailed as error:
                        need = episode.fail(Status.POLICY_FAILED, str(error))
                        continue
                    cost += self._prices.of(reply)
                    text, finish = _turn(reply, rules.plain)
                    transcript.messages.append({"role": "assistant", "content": text})
                    ids = transcript.encode(text)
                    nothing_known = [0.0] * len(ids)
                    need = episode.generated(Generation(ids, nothing_known, nothing_known, finish))
                case CallTool(action, top_k):
                    try:
                        if tools is None:
                            raise ToolError("the episode calls a tool, but no search server was given")
                        found = await call_tool(tools, action, top_k, request.question, request.image)
                    except ToolError as error:
                        need = episode.fail(Status.TOOL_FAILED, str(error))
                        continue
                    need = episode.observed(action, found)
        trajectory.seconds = time.monotonic() - began
        return Outcome(_without_pieces(trajectory), lengths(trajectory), cost)


def _settings(request: EpisodeRequest, max_tokens: int) -> dict[str, Any]:
    temperature = request.sampling.temperature
    sampling: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    return sampling | ({"seed": request.seed} if temperature else {})


def _turn(reply: ChatReply, plain: bool) -> tuple[str, str]:
    """The turn as our engine would have ended it: at the first closing tag; and how it ended."""
    text = reply.text.replace("\0", "")
    if plain:
        return text, "length" if reply.cut else "closed"
    ends = [place + len(tag) for tag in CLOSING_TAGS if (place := text.find(tag)) >= 0]
    if ends:
        return text[: min(ends)], "closed"
    return text, "length" if reply.cut else "closed"


def _without_pieces(trajectory: Trajectory) -> Trajectory:
    """The record without its pieces, which are nobody's tokens."""
    turns = [dataclasses.replace(turn, start=0, end=0) for turn in trajectory.turns]
    return dataclasses.replace(trajectory, token_ids=[], provenance=[], logprobs=[], sampling_logprobs=[], turns=turns)
