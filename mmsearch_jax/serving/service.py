"""Turns requests into episodes of the scheduler: prompts, images, seeds, and the limit of waiting requests.

One event loop owns the scheduler. Images are decoded in threads; one more thread runs the device's programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.core.pictures import picture_size
from mmsearch_jax.core.trajectory import Trajectory
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images import image_urls
from mmsearch_jax.rollout.chat import Chat
from mmsearch_jax.rollout.engine_group import Sampler
from mmsearch_jax.rollout.episode import Episode
from mmsearch_jax.rollout.live_episode import Driver, EpisodeRequest, LiveEpisode, Watch
from mmsearch_jax.rollout.scheduler import Scheduler
from mmsearch_jax.rollout.sequence import LiveSequence, PreparedImage
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.serving.completion import ChatChoice, Completion, EpisodeChoice, Usage
from mmsearch_jax.serving.requests import ApiError, ChatRequest, Message
from mmsearch_jax.settings.rollout import EpisodeConfig
from mmsearch_jax.settings.serving import ServeConfig

_AT_A_TIME = 2
"""Images that are unpacked at the same time."""
SEARCH_SUFFIX = "-search"
"""Suffix of the model name that runs search episodes, for clients that can only choose a model."""


class Service:
    """Chats and search episodes on one engine.

    Args:
      engine: already warmed up; only this service uses it.
      model: the model's name for clients.
      rules: rules of search episodes.
      tools: None if searches are not offered; closed with the service.
      limits: limits on requests.
    """

    def __init__(
        self, engine: Sampler, model: str, rules: EpisodeConfig, tools: ToolClient | None, limits: ServeConfig
    ):
        self.model, self.limits, self.tools = model, limits, tools
        self._engine, self._rules = engine, rules
        self._scheduler = Scheduler(engine, rules, tools)
        self._preparing = 0
        self._unpacking = asyncio.Semaphore(_AT_A_TIME)
        self._open: set[Completion] = set()
        self.failure: BaseException | None = None
        """The error that broke the engine; every later request is refused."""

    @property
    def models(self) -> list[str]:
        """The models' names."""
        return [self.model, *([self.model + SEARCH_SUFFIX] if self.tools is not None else [])]

    async def run(self) -> None:
        """Runs until it is cancelled or the engine fails; a failure goes to all waiting requests and is raised."""
        try:
            await self._scheduler.serve()
        except Exception as error:
            self.failure = error
            raise
        finally:
            for completion in self._open:
                completion.emit(ApiError(500, "the engine has stopped", kind="server_error", code="engine_stopped"))
            await self._scheduler.close()

    async def close(self) -> None:
        """Closes the client of the search server."""
        if self.tools is not None:
            await self.tools.close()

    @contextlib.asynccontextmanager
    async def complete(self, request: ChatRequest) -> AsyncIterator[Completion]:
        """Yields the replies during generation. Leaving the block cancels unfinished replies and frees their slots.

        Raises:
          ApiError: the request cannot be served.
        """
        self._check(request)
        search = request.search or request.model.endswith(SEARCH_SUFFIX)
        self._preparing += request.n
        try:
            await self._check_length(request)
            urls = [url for message in request.messages for url in message.images]
            encoded = await asyncio.gather(*(asyncio.to_thread(self._read_image, url) for url in urls))
            images = await asyncio.gather(*map(self._prepare, encoded))
        except ImageError as error:
            raise ApiError(400, str(error), param="messages", code="invalid_image") from error
        finally:
            self._preparing -= request.n
        completion = self._search(request, encoded, images) if search else await self._chat(request, images)
        self._open.add(completion)
        try:
            for run in completion.runs:
                self._scheduler.add(run)
            yield completion
        finally:
            self._open.discard(completion)
            for run in completion.runs:
                self._scheduler.cancel(run)

    def load(self) -> dict[str, int]:
        """Number of slots in use, and of replies that wait for a slot."""
        slots = self._engine.config.num_slots
        return {"slots": slots, "used": slots - self._engine.free_slots, "waiting": self._scheduler.num_waiting}

    # Checks -------------------------------------------------------------------------------------------------

    def _check(self, request: ChatRequest) -> None:
        if self.failure is not None:
            raise ApiError(503, "the engine has stopped", kind="server_error", code="engine_stopped")
        if request.model not in self.models:
            offered = " and ".join(f"'{name}'" for name in self.models)
            raise ApiError(
                404, f"no model '{request.model}': this server has {offered}", param="model", code="model_not_found"
            )
        slots = self._engine.config.num_slots
        if request.n > slots:
            raise ApiError(400, f"n is {request.n}, but this server has {slots} slots: use a smaller n", param="n")
        if request.top_logprobs > (most := self._engine.config.top_logprobs):
            raise ApiError(
                400,
                f"top_logprobs is {request.top_logprobs}, but this server was started for at most {most}: leave it out, or "
                f"start the server with --config.engine.top_logprobs={request.top_logprobs}",
                param="top_logprobs",
                code="unsupported_parameter",
            )
        backlog = self._scheduler.num_waiting + self._preparing - self._engine.free_slots
        if backlog + request.n > self.limits.max_waiting:
            raise ApiError(
                429, "too many replies are waiting: try again later", kind="rate_limit_error", code="overloaded"
            )

    async def _check_length(self, request: ChatRequest) -> None:
        renderer, most = self._engine.renderer, self._engine.config.max_length
        if await asyncio.to_thread(exceeds, renderer, [message.text for message in request.messages], most):
            raise ApiError(
                400,
                f"the messages have more tokens than the model's context length, which is {most}",
                param="messages",
                code="context_length_exceeded",
            )

    def _read_image(self, url: str) -> bytes:
        if not url.startswith(image_urls.SCHEMES):
            raise ImageError(f"{image_urls.shown(url)}: an image must be a data URL: data:image/jpeg;base64,...")
        if not url.startswith("data:") and not self.limits.fetch_images:
            raise ImageError(f"{image_urls.shown(url)}: this server does not fetch images: send a data URL")
        return image_urls.read_url(url)

    async def _prepare(self, encoded: bytes) -> PreparedImage:
        # A few kilobytes can unpack to gigabytes, and every request may bring several.
        width, height = picture_size(encoded)
        if width * height > self.limits.max_pixels:
            raise ImageError(
                f"the image has {width} x {height} pixels, at most {self.limits.max_pixels:,} are accepted: send a smaller one"
            )
        async with self._unpacking:
            return await asyncio.to_thread(self._engine.prepare_image, encoded)

    # Runs ---------------------------------------------------------------------------------------------------

    async def _chat(self, request: ChatRequest, images: Sequence[PreparedImage]) -> Completion:
        renderer = self._engine.renderer
        system = request.system if request.system is not None else self.limits.system_prompt
        counts = [image.num_tokens for image in images]
        # Encoding a long text is slow, so it must not block the event loop.
        prompt = await asyncio.to_thread(prompt_ids, renderer, system, request.messages, counts)
        room = self._engine.config.max_length - len(prompt)
        if room < 1:
            raise ApiError(
                400,
                f"the messages have {len(prompt)} tokens, including images; the model's context length is "
                f"{self._engine.config.max_length}",
                param="messages",
                code="context_length_exceeded",
            )
        max_tokens = min(request.max_tokens or room, room)
        completion = Completion(Usage(prompt=len(prompt)))
        for index in range(request.n):
            watch = ChatChoice(index, renderer, request.stop, completion.emit, self._scheduler.cancel, completion.usage)
            make = functools.partial(Chat, prompt_ids=prompt, max_tokens=max_tokens)
            self._add(completion, request, EpisodeRequest("", "", "", b""), images, make, watch, plain=True)
        return completion

    def _search(self, request: ChatRequest, encoded: Sequence[bytes], images: Sequence[PreparedImage]) -> Completion:
        if self.tools is None:
            raise ApiError(400, "this server has no search tools: start it with --tools-url", param="search")
        # An episode begins anew with its own prompts: it takes the last question and the image that was shown last. Earlier
        # turns and a system message have no place in it.
        last = request.messages[-1]
        if len(last.images) > 1:
            raise ApiError(
                400, "a search episode takes one image, in the last user message or before it", param="messages"
            )
        encoded, images = encoded[-1:], images[-1:]
        if request.stop or request.logprobs:
            raise ApiError(
                400, "a search episode supports neither stop nor logprobs", param="stop" if request.stop else "logprobs"
            )
        question = last.text
        most = self._rules.max_turn_tokens
        rules = dataclasses.replace(self._rules, max_turn_tokens=min(request.max_tokens or most, most))
        completion = Completion(Usage())
        for index in range(request.n):
            make = functools.partial(
                Episode,
                question=question,
                image_grids=[image.grid for image in images],
                image_token_counts=[image.num_tokens for image in images],
                has_image=bool(images),
                config=rules,
                renderer=self._engine.renderer,
            )
            watch = EpisodeChoice(index, completion.emit, completion.usage, self.limits.unanswered)
            asked = EpisodeRequest("", "", question, encoded[0] if encoded else b"")
            self._add(completion, request, asked, images, make, watch, plain=rules.plain)
        return completion

    def _add(
        self,
        completion: Completion,
        request: ChatRequest,
        asked: EpisodeRequest,
        images: Sequence[PreparedImage],
        make: Callable[[Trajectory], Driver],
        watch: Watch,
        *,
        plain: bool,
    ) -> None:
        first = secrets.randbits(31) if request.seed is None else request.seed
        seed = (first + len(completion.runs)) & 0xFFFFFFFF
        trajectory = Trajectory("", "", "", seed, self._engine.policy_version)
        sequence = LiveSequence(
            trajectory.token_ids, list(images), seed, request.sampling, plain, num_top=request.top_logprobs
        )
        completion.runs.append(LiveEpisode(asked, make(trajectory), sequence, watch=watch))


_PIECE_CHARS, _LOST_PER_PIECE = 16_384, 16


def exceeds(renderer: ChatRenderer, texts: Sequence[str], max_tokens: int) -> bool:
    """Whether texts certainly have more tokens than this. Encodes them in pieces and stops early: megabytes take seconds.

    A cut inside a word adds tokens that the whole text does not have; `_LOST_PER_PIECE` is more than these.
    """
    count = 0
    for text in texts:
        for start in range(0, len(text), _PIECE_CHARS):
            count += max(0, len(renderer.encode(text[start : start + _PIECE_CHARS])) - _LOST_PER_PIECE)
            if count > max_tokens:
                return True
    return False


def prompt_ids(
    renderer: ChatRenderer, system: str | None, messages: Sequence[Message], image_token_counts: Sequence[int]
) -> list[int]:
    """The tokens of a conversation up to the assistant's next message, each message's texts and images in the client's order.

    Args:
      image_token_counts: number of tokens of each image, in the order of the messages.
    """
    counts = iter(image_token_counts)
    parts = [[part if isinstance(part, str) else next(counts) for part in message.parts] for message in messages]
    return renderer.dialogue_ids(parts, system)
