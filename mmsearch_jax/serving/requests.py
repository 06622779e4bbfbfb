"""Reads OpenAI's chat completion requests strictly: settings for the engine, or a typed error for unsupported fields.

Pure functions, without tokens, engines or HTTP. The fields are those of OpenAI's API reference for `POST
/v1/chat/completions`, and our extensions `top_k` and `search`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmsearch_jax.rollout.sampling import SamplingParams

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
_ROLES = ("system", "developer", "user", "assistant")
# Unsupported fields, with the values that are accepted because they have no effect.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none",),
    "function_call": ("none",),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
}


class ApiError(Exception):
    """A response other than 200, in OpenAI's format.

    Attributes:
      status: status of the HTTP response.
      kind: OpenAI's `type`.
      param, code: as in OpenAI's format.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code

    def to_json(self) -> dict[str, Any]:
        """The response's body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


@dataclasses.dataclass(frozen=True)
class ImageUrl:
    """An image of a message, by its address."""

    url: str


@dataclasses.dataclass(frozen=True)
class Message:
    """One message: its parts in order.

    Attributes:
      parts: a text, or an `ImageUrl`. Two texts in a row are one, joined by a line break.
    """

    role: str
    parts: tuple[str | ImageUrl, ...]

    @property
    def text(self) -> str:
        """All texts, joined by line breaks: what a search episode asks, whose images come first."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[str, ...]:
        """The addresses of the images."""
        return tuple(part.url for part in self.parts if isinstance(part, ImageUrl))


@dataclasses.dataclass(frozen=True)
class ChatRequest:
    """A checked request.

    Attributes:
      system: text of the system message; None if there is none.
      messages: alternate between user and assistant; the first and the last are the user's.
      max_tokens: token limit of a reply; None: the space that is left in the engine.
      seed: None: a seed is chosen.
      search: whether to run a search episode instead of a plain chat.
    """

    model: str
    system: str | None
    messages: tuple[Message, ...]
    max_tokens: int | None
    sampling: SamplingParams
    seed: int | None
    stop: tuple[str, ...]
    n: int
    logprobs: bool
    top_logprobs: int
    stream: bool
    include_usage: bool
    search: bool


def read_request(body: Any) -> ChatRequest:
    """Reads a request's JSON. A null field counts as absent; an unknown field is ignored.

    Raises:
      ApiError: 400, with the field in `param`.
    """
    if not isinstance(body, Mapping):
        raise ApiError(400, "the body must be a JSON object")
    for name, harmless in _UNSUPPORTED.items():
        if body.get(name) is not None and body[name] not in harmless:
            raise ApiError(400, f"{name} is not supported: leave it out", param=name, code="unsupported_parameter")
    system, messages = _messages(body.get("messages"))
    options = _field(body, "stream_options", dict, {})
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return ChatRequest(
        model=_field(body, "model", str, ""),
        system=system,
        messages=messages,
        max_tokens=_integer(body, limit, None, 1, 1 << 30),
        sampling=_sampling(body),
        seed=_integer(body, "seed", None, -(1 << 63), (1 << 63) - 1),
        stop=_stop(body.get("stop")),
        n=_integer(body, "n", 1, 1, MAX_CHOICES) or 1,
        logprobs=_field(body, "logprobs", bool, False),
        top_logprobs=_top_logprobs(body),
        stream=_field(body, "stream", bool, False),
        include_usage=_field(options, "include_usage", bool, False, "stream_options."),
        search=_field(body, "search", bool, False),
    )


def _sampling(body: Mapping[str, Any]) -> SamplingParams:
    temperature, top_p = _number(body, "temperature", 1.0, 0.0, 2.0), _number(body, "top_p", 1.0, 0.0, 1.0)
    top_k = _integer(body, "top_k", 0, -1, 1 << 30) or 0
    if top_p == 0.0:
        # The smallest set of tokens holds only the most likely one.
        return SamplingParams(temperature=0.0)
    return SamplingParams(temperature, top_p, max(0, top_k))


def _top_logprobs(body: Mapping[str, Any]) -> int:
    count = _integer(body, "top_logprobs", 0, 0, MAX_TOP_LOGPROBS) or 0
    if count and not body.get("logprobs"):
        raise ApiError(400, "top_logprobs needs logprobs: set it to true", param="top_logprobs")
    return count


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(stop, str) for stop in stops):
        raise ApiError(400, f"stop must be a string or a list of at most {MAX_STOPS} strings", param="stop")
    return tuple(stop for stop in stops if stop)


def _messages(value: Any) -> tuple[str | None, tuple[Message, ...]]:
    if not isinstance(value, list) or not value:
        raise ApiError(400, "messages must be a list with at least one message", param="messages")
    messages = [_message(each, f"messages[{i}]") for i, each in enumerate(value)]
    system = None
    if messages[0].role in ("system", "developer"):
        system = messages.pop(0).text
    wanted = "user"
    for i, message in enumerate(messages, len(value) - len(messages)):
        if message.role != wanted:
            raise ApiError(
                400,
                f"messages[{i}] is from '{message.role}', expected '{wanted}': after at most one system message, user "
                "and assistant must alternate",
                param=f"messages[{i}].role",
            )
        wanted = "assistant" if wanted == "user" else "user"
    if wanted == "user":
        raise ApiError(400, "the last message must be the user's", param="messages")
    return system, tuple(messages)


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping) or value.get("role") not in _ROLES:
        raise ApiError(400, f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role")
    role, content = value["role"], value.get("content")
    if isinstance(content, str):
        return Message(role, (_text(content, f"{where}.content"),))
    if not isinstance(content, list):
        raise ApiError(400, f"{where}.content must be a string or a list of parts", param=f"{where}.content")
    parts: list[str | ImageUrl] = []
    for i, part in enumerate(content):
        kind, place = part.get("type") if isinstance(part, Mapping) else None, f"{where}.content[{i}]"
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise ApiError(400, f"{place}.text must be a string", param=f"{place}.text")
            text = _text(part["text"], f"{place}.text")
            if parts and isinstance(parts[-1], str):
                text = f"{parts.pop()}\n{text}"
            parts.append(text)
        elif kind == "image_url" and role == "user":
            parts.append(ImageUrl(_image_url(part.get("image_url"), place)))
        else:
            raise ApiError(
                400, f"{place}.type must be 'text', or in a user's message 'image_url'", param=f"{place}.type"
            )
    return Message(role, tuple(parts))


def _text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, f"{place} is not valid Unicode: {error.reason}", param=place) from error
    return text


def _image_url(value: Any, place: str) -> str:
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str) or not url:
        raise ApiError(400, f"{place}.image_url.url must be a string", param=f"{place}.image_url.url")
    return url


def _field(body: Mapping[str, Any], name: str, kind: type, default: Any, section: str = "") -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise ApiError(400, f"{section}{name} must be of type {kind.__name__}", param=section + name)
    return value


def _number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ApiError(400, f"{name} must be a number from {low:g} to {high:g}", param=name)
    return float(value)


def _integer(body: Mapping[str, Any], name: str, default: int | None, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ApiError(400, f"{name} must be an integer from {low} to {high}", param=name)
    return value
