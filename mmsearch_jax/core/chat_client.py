"""Client for any OpenAI-compatible chat endpoint (vLLM, SGLang, hosted): one deadline per call including retries, typed errors.

It transfers messages and text; the callers decide what to ask and what a reply means.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import aiohttp
import tenacity

from mmsearch_jax.core.bounded import read_bounded
from mmsearch_jax.core.characters import whole_characters
from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.errors import ChatFailed

T = TypeVar("T")
_ATTEMPTS = 6
_MAX_REPLY_BYTES = 4 << 20


class ChatReply(NamedTuple):
    """A reply.

    Attributes:
      text: without thoughts in <think> tags, which some servers leave in it.
      refused: whether the endpoint says that the model declined.
      num_tokens: tokens of prompt and reply; 0 if the endpoint does not report them.
      reply_tokens: tokens of the reply only.
      cut: whether the reply was cut at `max_tokens`.
    """

    text: str
    refused: bool = False
    num_tokens: int = 0
    reply_tokens: int = 0
    cut: bool = False


class Unreadable(Exception):
    """Raised by a caller's reader: the reply cannot be used; another attempt may succeed."""


class _Passing(Exception):
    """A transient failure."""


def image_part(encoded: bytes) -> dict[str, Any]:
    """An encoded image as one part of a message's content."""
    kind = "png" if encoded.startswith(b"\x89PNG") else "webp" if encoded[8:12] == b"WEBP" else "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> dict[str, Any]:
    """Text as one part of a message's content."""
    return {"type": "text", "text": text}


class ChatClient:
    """Client of one endpoint.

    Args:
      endpoint: address, model and limits.
      role: the model's role, for error messages: "judge", "teacher".
      wanted: the requested item, for error messages: "verdict", "turn".
      error: the exception that `ask` raises.
    """

    def __init__(
        self, endpoint: ChatEndpoint, role: str = "model", wanted: str = "reply", error: type[ChatFailed] = ChatFailed
    ):
        self.endpoint = endpoint
        self._name, self._wanted, self._error = f"the {role} at {endpoint.url}", wanted, error
        self._session: aiohttp.ClientSession | None = None
        self._gate: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, messages: Sequence[Mapping[str, Any]], read: Callable[[ChatReply], T], **settings: Any) -> T:
        """Asks the model and returns `read(reply)`. After `Unreadable` or a transient failure it asks again.

        Args:
          settings: additional fields of the request (`seed`, ...), or values that replace the endpoint's (`max_tokens`, ...).

        Raises:
          ChatFailed (or `error`): no readable reply within the deadline; the message gives the reason.
        """
        self._open()
        assert self._gate is not None
        deadline = self.endpoint.deadline_s
        attempts = tenacity.AsyncRetrying(
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5.0),
            retry=tenacity.retry_if_exception_type((_Passing, Unreadable, aiohttp.ClientError)),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            reraise=True,
        )
        why = "no answer"
        async with self._gate:
            try:
                async with asyncio.timeout(deadline):
                    async for attempt in attempts:
                        with attempt:
                            try:
                                return read(await self._once(messages, settings))
                            except (_Passing, Unreadable, aiohttp.ClientError) as error:
                                why = str(error) or type(error).__name__
                                raise
            except TimeoutError as error:
                raise self._error(f"{self._name} gave no {self._wanted} in {deadline:g} s ({why})") from error
            except (_Passing, Unreadable, aiohttp.ClientError) as error:
                raise self._error(f"{self._name} gave no {self._wanted} ({why})") from error
        raise AssertionError("tenacity re-raises the last failure")

    async def close(self) -> None:
        """Closes connections; a later call opens them again."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._session, self._loop = aiohttp.ClientSession(), loop
            self._gate = asyncio.Semaphore(self.endpoint.max_concurrency)

    async def _once(self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> ChatReply:
        assert self._session is not None
        endpoint = self.endpoint
        key = os.environ.get(endpoint.key_env, "")
        body = {
            "model": endpoint.model,
            "temperature": endpoint.temperature,
            "max_tokens": endpoint.max_tokens,
            "messages": list(messages),
            **settings,
        }
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self._session.post(
            f"{endpoint.url.rstrip('/')}/chat/completions", json=body, headers=headers
        ) as reply:
            received = await read_bounded(reply, _MAX_REPLY_BYTES)
            if received is None:
                raise self._error(f"{self._name} sent a reply of more than {_MAX_REPLY_BYTES:,} bytes")
            text = received.decode("utf-8", "replace")
            if reply.status == 429 or reply.status >= 500:
                raise _Passing(f"HTTP {reply.status}")
            if reply.status != 200:
                hint = f"; is the key in {endpoint.key_env}?" if reply.status in (401, 403) else ""
                raise self._error(f"{self._name} answered HTTP {reply.status}: {text[:200]}{hint}")
        return _completion(text)


def _completion(text: str) -> ChatReply:
    """The reply of a response's body.

    Raises:
      _Passing: the body is no chat completion. An endpoint decides what it sends, so nothing in it may raise anything else.
    """
    try:
        body = whole_characters(json.loads(text))
        choice = body["choices"][0]
        said, refusal = _text_of(choice["message"].get("content")), choice["message"].get("refusal")
        refused = bool(refusal) or choice.get("finish_reason") == "content_filter"
        usage, cut = body.get("usage") or {}, choice.get("finish_reason") == "length"
        num_tokens, reply_tokens = (int(usage.get(key) or 0) for key in ("total_tokens", "completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _Passing(f"no chat completion: {text[:100]}") from error
    return ChatReply(_without_thoughts(said), refused, num_tokens, reply_tokens, cut)


# How models mark their thoughts (Qwen, DeepSeek, Kimi, Magistral, prompts that ask for it). Our own <reason> is an action.
_THOUGHTS = re.compile(r"\s*(?:<(?:think|thinking|thought|thoughts|reasoning)>|◁think▷|\[THINK\])", re.IGNORECASE)
_THOUGHTS_END = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning)>|◁/think▷|\[/THINK\]", re.IGNORECASE)


def _without_thoughts(text: str) -> str:
    """What follows the thoughts, whether or not the server's chat template has already written the opening tag; "" if they
    have no end."""
    opened = _THOUGHTS.match(text) is not None
    # Only <think> is opened by templates, so other marks that close nothing are part of the reply.
    ends = [end for end in _THOUGHTS_END.finditer(text) if opened or end[0].lower() == "</think>"]
    if ends:
        return text[ends[-1].end() :].lstrip()
    return "" if opened else text


def _text_of(content: Any) -> str:
    """The text of a message's content: a string, nothing, or a list of parts, of which only the text is the reply (a part of
    type "thinking" is not)."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError(f"content is a {type(content).__name__}")
    parts = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in content]
    texts = [part.get("text") or "" for part in parts if part.get("type") in ("text", "output_text")]
    return "".join(texts)
