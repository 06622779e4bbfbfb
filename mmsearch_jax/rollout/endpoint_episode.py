"""An episode whose turns are text: from a model at a chat endpoint, or from a script.

The state machine is `rollout.episode.Episode`, as in the engine. A `Transcript` is its renderer: it gives token ids to the
episode and keeps the same conversation as messages for the endpoint. This module makes no requests itself: the caller's
`write_turn` calls the model, and `Tools` answer searches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mmsearch_jax.core.chat_client import ChatReply, image_part, text_part
from mmsearch_jax.core.errors import ToolError
from mmsearch_jax.core.protocol import CLOSING_TAGS
from mmsearch_jax.core.trajectory import Trajectory
from mmsearch_jax.rollout.episode import CallTool, Done, Episode, Finish, Generate, Generation, Renderer
from mmsearch_jax.rollout.tool_client import Tools, call_tool

WriteTurn = Callable[[int], Awaitable[Generation]]
"""Writes the next turn, given the messages and the maximum number of tokens."""

_PIECE = 4
_ENCODING = "utf-32-le"


class TextPieces:
    """A renderer for models with an unknown tokenizer: an id encodes four characters, about one token of English.

    There is no chat markup among the ids, so token limits count text only.
    """

    im_end = -1
    """An id that never occurs: control tokens are not sampled here."""

    def encode(self, text: str) -> list[int]:
        """One id per piece of four characters. The text must not contain NUL characters, which pad the last piece."""
        pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
        return [int.from_bytes(piece.encode(_ENCODING, "surrogatepass"), "little") for piece in pieces]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The inverse of `encode`."""
        raw = b"".join(number.to_bytes(4 * _PIECE, "little") for number in token_ids)
        return raw.decode(_ENCODING, "surrogatepass").replace("\0", "")

    def prompt_ids(self, text: str, image_token_counts: Sequence[int] = ()) -> list[int]:
        """The first user text."""
        return self.encode(text)

    def observation_ids(self, text: str, *, closed: bool = False) -> list[int]:
        """A later user text."""
        return self.encode(text)


class Transcript:
    """The renderer of an episode that also records the conversation as messages for a chat endpoint.

    Args:
      renderer: makes the token ids that count towards the episode's limits and by which observations are cut: a `ChatRenderer`
        of the policy's tokenizer, or `TextPieces`.
      image: encoded; shown with the first message. None if there is none.

    Attributes:
      messages: the conversation so far, in the form of OpenAI's chat completions.
    """

    def __init__(self, renderer: Renderer, image: bytes | None):
        self.messages: list[dict[str, Any]] = []
        self._renderer, self._image = renderer, image
        self.im_end = renderer.im_end

    def encode(self, text: str) -> list[int]:
        """Plain text to ids."""
        return self._renderer.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids to text."""
        return self._renderer.decode(token_ids)

    def prompt_ids(self, text: str, image_token_counts: Sequence[int] = ()) -> list[int]:
        """The ids of the first message: the image, then the text."""
        image = [] if self._image is None else [image_part(self._image)]
        self.messages.append({"role": "user", "content": [*image, text_part(text)]})
        return self._renderer.prompt_ids(text, image_token_counts)

    def observation_ids(self, text: str, *, closed: bool = False) -> list[int]:
        """The ids of a later user message."""
        self.messages.append({"role": "user", "content": text})
        return self._renderer.observation_ids(text, closed=closed)

    def turn(self, text: str, finish: Finish) -> Generation:
        """The model's message, added to the conversation. Its log-probs are unknown and set to 0."""
        self.messages.append({"role": "assistant", "content": text})
        ids = self.encode(text)
        return Generation(ids, [0.0] * len(ids), finish)


async def play_episode(
    episode: Episode, write_turn: WriteTurn, tools: Tools | None, question: str, image: bytes | None
) -> Trajectory:
    """Runs an episode to its end and returns its trajectory.

    An exception of `write_turn` or a tool ends it and leaves the status "running": call `Episode.fail` to record why.

    Args:
      image: encoded; None if the episode's rules allow no image search.

    Raises:
      ToolError: a tool returned no result, or `tools` is None and the episode calls one.
    """
    need = episode.begin()
    while not isinstance(need, Done):
        match need:
            case Generate(max_tokens):
                need = episode.generated(await write_turn(max_tokens))
            case CallTool(action, top_k):
                if tools is None:
                    raise ToolError("the episode calls a tool, but no search server was given")
                need = episode.observed(action, await call_tool(tools, action, top_k, question, image or b""))
    return episode.trajectory


def cut_turn(reply: ChatReply, *, plain: bool) -> tuple[str, Finish]:
    """The part of a reply that our engine would have sampled, up to the first closing tag, and how it ended.

    Args:
      plain: whether answers have no tags; then the whole reply is the turn.

    Returns:
      The text without NUL characters, and LENGTH if the endpoint cut the reply before its end, else CLOSED.
    """
    text = reply.text.replace("\0", "")
    if not plain:
        ends = [place + len(tag) for tag in CLOSING_TAGS if (place := text.find(tag)) >= 0]
        if ends:
            return text[: min(ends)], Finish.CLOSED
    return text, Finish.LENGTH if reply.cut else Finish.CLOSED
