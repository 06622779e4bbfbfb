"""Converts deltas to the JSON of OpenAI's `chat.completion` and `chat.completion.chunk` objects."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from mmsearch_jax.serving.completion import Delta, Token, Usage


class Reply:
    """Creates the objects of one request, which share an id.

    Args:
      logprobs: whether to include the tokens' log-probs.
    """

    def __init__(self, model: str, logprobs: bool):
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._logprobs = logprobs

    def whole(self, deltas: Sequence[Delta], usage: Usage, n: int) -> dict[str, Any]:
        """The object of a reply that is not streamed."""
        choices = [self._choice(index, [delta for delta in deltas if delta.index == index]) for index in range(n)]
        return {"object": "chat.completion", **self._head, "choices": choices, "usage": _usage(usage)}

    def opening(self, n: int) -> dict[str, Any]:
        """The first chunk, with the role."""
        return self._chunk(
            [
                {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
                for index in range(n)
            ]
        )

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """The chunk of a delta."""
        said: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        choice = {"index": delta.index, "delta": said, "logprobs": self._tokens([delta]), "finish_reason": delta.finish}
        if delta.episode is not None:
            choice["episode"] = delta.episode
        return self._chunk([choice])

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The last chunk, with the usage, for requests that ask for it."""
        return {**self._chunk([]), "usage": _usage(usage)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"object": "chat.completion.chunk", **self._head, "choices": choices}

    def _choice(self, index: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(delta.text for delta in deltas),
            "refusal": None,
        }
        if reasoning := "".join(delta.reasoning for delta in deltas):
            message["reasoning_content"] = reasoning
        choice = {
            "index": index,
            "message": message,
            "logprobs": self._tokens(deltas),
            "finish_reason": deltas[-1].finish,
        }
        if deltas[-1].episode is not None:
            choice["episode"] = deltas[-1].episode
        return choice

    def _tokens(self, deltas: Sequence[Delta]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {"content": [_token(token) for delta in deltas for token in delta.tokens], "refusal": None}


def _token(token: Token) -> dict[str, Any]:
    return {**_spelt(token), "top_logprobs": [_spelt(top) for top in token.tops]}


def _spelt(token: Token) -> dict[str, Any]:
    return {"token": token.data.decode(errors="replace"), "logprob": token.logprob, "bytes": list(token.data)}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.sampled,
        "total_tokens": usage.prompt + usage.sampled,
    }
