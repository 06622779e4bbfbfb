"""What a search does, from request to reply: cache, grounding, backends, page reading, condensing. Knows no HTTP."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from PIL import Image

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.core.search_api import Box, ImageSearchRequest, SearchReply, SearchResult, TextSearchRequest
from tools_server.backends.backend import QueryPicture
from tools_server.cache.answers import Cache
from tools_server.condense import Condenser
from tools_server.extracts import SEPARATOR, choose_extracts, fitted, shown_result, split_extracts
from tools_server.failures import SearchFailure
from tools_server.grounders.grounder import NOT_THERE, Grounder, Grounding
from tools_server.inert import inert_result
from tools_server.limits.guarded import Chain, Found
from tools_server.limits.run_budget import RunBudget
from tools_server.request_images import decode_image, read_base64
from tools_server.settings.answering import ServiceLimits
from tools_server.settings.sources import LOCAL
from tools_server.work_pool import WorkPool


class PageReader(Protocol):
    """Reads pages of the web.

    Attributes:
      outcomes: number of pages by outcome: "ok", or one word for the failure.
    """

    outcomes: Counter[str]

    async def read(self, url: str) -> str:
        """A page's text, made inert; "" if it could not be read."""
        ...

    async def close(self) -> None:
        """Ends the work in progress."""
        ...


@dataclasses.dataclass
class Parts:
    """The parts of a service.

    Attributes:
      identity: what decides an answer (backends, models, number of pages that are read); part of every cache key.
      reader, num_pages: reads the first pages of a text search; None and 0 leave the results as they are.
      condenser: None leaves results as they are.
      extract_chars: characters of the extract that a result of the backend "local" shows; 0: all of its text.
      closers: called at the end, in this order.
    """

    text: Chain[str]
    image: Chain[QueryPicture]
    grounder: Grounder
    cache: Cache
    budget: RunBudget | None
    pool: WorkPool
    identity: dict[str, Any] = dataclasses.field(default_factory=dict)
    reader: PageReader | None = None
    num_pages: int = 0
    condenser: Condenser | None = None
    extract_chars: int = 0
    closers: list[Callable[[], Awaitable[None]]] = dataclasses.field(default_factory=list)


class SearchService:
    """The three tools."""

    def __init__(self, parts: Parts, limits: ServiceLimits):
        self.parts, self.limits = parts, limits
        self._images = _KeptImages(limits.max_kept_image_bytes)

    async def text_search(self, asked: TextSearchRequest, whole: bool = False) -> SearchReply:
        """The best pages for a query.

        Args:
          whole: results keep all their text, however long, instead of the extracts that fit the query.

        Raises:
          SearchFailure: no answer; says why.
        """
        query = " ".join(asked.query.split())
        request = {"tool": "text_search", "query": query, "top_k": asked.top_k, **self.parts.identity.get("text", {})}
        if self.parts.condenser is not None:
            request["question"] = asked.question
        if whole:
            request["whole"] = True
        return await self._answered(request, asked.deadline_s, lambda: self._find_text(query, asked, whole))

    async def image_search(self, asked: ImageSearchRequest) -> SearchReply:
        """Pages that show the image, or the region that the box or the expression names.

        Raises:
          SearchFailure: no answer.
          ImageError: the image cannot be read.
        """
        data = self._image(asked)
        request = image_request(data, asked.top_k, self.parts.identity, asked.expression, asked.box)
        return await self._answered(request, asked.deadline_s, lambda: self._find_images(data, asked))

    async def ground(self, asked: ImageSearchRequest) -> SearchReply:
        """Where the expression points, without a search.

        Raises:
          SearchFailure, ImageError: as `image_search`.
        """
        image = await self._decode(self._image(asked))
        wait_s = self._wait_s(asked.deadline_s)
        try:
            async with asyncio.timeout(wait_s):
                found = await self.parts.grounder.ground(image, asked.expression or "")
        except TimeoutError:
            raise SearchFailure(
                "upstream_timeout", f"the grounder gave no box within {wait_s:g} s", passing=True
            ) from None
        if found.box is None:
            found = dataclasses.replace(found, note=NOT_THERE)
        return _grounded(SearchReply((), tool="ground"), found, asked_for=True)

    def keep_image(self, data: bytes) -> str:
        """Keeps an encoded image for later requests; returns its id, the SHA-256 of its bytes."""
        return self._images.put(data)

    async def close(self) -> None:
        """Waits for the work in progress, then closes everything."""
        await self.parts.cache.drain()
        # First, because its threads may read files that are closed next.
        self.parts.pool.close()
        for close in self.parts.closers:
            await close()

    # Steps ------------------------------------------------------------------------------------------------------

    async def _answered(
        self, request: dict[str, Any], deadline_s: float | None, call: Callable[[], Awaitable[SearchReply]]
    ) -> SearchReply:
        async def work() -> dict[str, Any]:
            return (await call()).to_json()

        wait_s = self._wait_s(deadline_s)
        try:
            # A little longer than the call's own deadline, so that the call can report its reason.
            async with asyncio.timeout(wait_s + 0.5):
                kept, cached = await self.parts.cache.answer(request, work)
        except TimeoutError:
            raise SearchFailure("upstream_timeout", f"no answer within {wait_s:g} s", passing=True) from None
        reply = SearchReply.from_json(kept)
        return dataclasses.replace(reply, cached=True, cost_usd=0.0) if cached else reply

    async def _find_text(self, query: str, asked: TextSearchRequest, whole: bool) -> SearchReply:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.limits.deadline_s
        found = await self.parts.text.search(query, asked.top_k, self.limits.deadline_s)
        # Extracts are chosen from the whole text, of which the inert form may be a part.
        shown = None if whole else await asyncio.to_thread(self._shown, found, query)
        found = _inert(found)
        shown = shown or found
        pages = await self._read_pages(found.results, end - loop.time())
        reply = _reply(shown, "text_search")
        if whole:
            return dataclasses.replace(
                reply,
                results=tuple(
                    dataclasses.replace(r, snippet=_joined(r, page))
                    for r, page in zip(found.results, pages, strict=True)
                ),
            )
        if self.parts.condenser is not None and found.results:
            read = [
                dataclasses.replace(r, snippet=_joined(r, page)) for r, page in zip(found.results, pages, strict=True)
            ]
            summary = await self.parts.condenser.text(query, asked.question, read)
            reply = dataclasses.replace(reply, summary=summary.text, summarised_by=summary.by, note=summary.note)
        shortened = await asyncio.to_thread(
            lambda: tuple(self._shortened(r, page, query) for r, page in zip(shown.results, pages, strict=True))
        )
        return dataclasses.replace(reply, results=shortened)

    async def _find_images(self, data: bytes, asked: ImageSearchRequest) -> SearchReply:
        image = await self._decode(data)
        found = Grounding(None)
        if asked.box is not None:
            found = Grounding(_inside(asked.box, image))
        elif asked.expression is not None:
            found = await self.parts.grounder.ground(image, asked.expression)
            if found.box is None and not found.search_whole:
                return _grounded(SearchReply((), "image_search"), found, asked_for=True)
        part = image if found.box is None else image.crop(found.box)
        answer = _inert(await self.parts.image.search(QueryPicture(part), asked.top_k, self.limits.deadline_s))
        reply = _grounded(_reply(answer, "image_search"), found, asked.expression is not None)
        if self.parts.condenser is not None and reply.results:
            summary = await self.parts.condenser.images(reply.results)
            note = " ".join(part for part in (reply.note, summary.note) if part) or None
            reply = dataclasses.replace(reply, summary=summary.text, summarised_by=summary.by, note=note)
        return reply

    async def _read_pages(self, results: tuple[SearchResult, ...], within_s: float) -> list[str]:
        """The text of each result's page: "" beyond the first `num_pages`, and if it cannot be read in time."""
        reader = self.parts.reader
        first = results[: self.parts.num_pages] if reader is not None else ()
        texts = [_in_time(reader, result.url, within_s) for result in first] if reader is not None else []
        return [*await asyncio.gather(*texts), *[""] * (len(results) - len(first))]

    def _shown(self, found: Found, query: str) -> Found | None:
        """The corpus's results with what fits the query best of their texts; None for the web's, which come as extracts."""
        if found.backend != LOCAL:
            return None
        chars = self.parts.extract_chars, self.limits.max_snippet_chars
        return dataclasses.replace(found, results=tuple(shown_result(r, query, *chars) for r in found.results))

    def _shortened(self, result: SearchResult, page: str, query: str) -> SearchResult:
        """The result with what fits the query best of its page, after the engine's snippet.

        The page may be a consent dialog, a login or an error: without a word of the query it adds nothing, and it never
        replaces the snippet, which the engine chose for the query.
        """
        limit, snippet = self.limits.max_snippet_chars, result.snippet
        if not page or _has(page, snippet):
            return dataclasses.replace(result, snippet=fitted(page or snippet, query, result.title, limit))
        snippet = fitted(snippet, query, result.title, limit)
        room = limit - len(snippet) - len(SEPARATOR)
        extracts = [extract for extract in split_extracts(page) if not _has(snippet, extract)]
        added = choose_extracts(extracts, query, result.title, room, fitting_only=True) if room > 0 and extracts else ""
        if added and len(page) <= room:
            snippet = _joined(result, page)
        elif added and len(added) <= room:
            snippet = SEPARATOR.join(part for part in (snippet, added) if part)
        return dataclasses.replace(result, snippet=snippet)

    def _wait_s(self, deadline_s: float | None) -> float:
        return min(deadline_s or self.limits.deadline_s, self.limits.deadline_s)

    def _image(self, asked: ImageSearchRequest) -> bytes:
        if asked.image_id:
            return self._images.get(asked.image_id)
        return read_base64(asked.image_base64)

    async def _decode(self, data: bytes) -> Image.Image:
        return await self.parts.pool.run(lambda: decode_image(data, self.limits.max_pixels))


def image_request(
    data: bytes, top_k: int, identity: Mapping[str, Any], expression: str | None = None, box: Box | None = None
) -> dict[str, Any]:
    """What decides the answer to an image search: its key in the cache.

    Args:
      data: the encoded image, as it is sent.
      identity: see `Parts`.
    """
    return {
        "tool": "image_search",
        "image": hashlib.sha256(data).hexdigest(),
        "expression": expression,
        "box": box,
        "top_k": top_k,
        **identity.get("image", {}),
    }


def _joined(result: SearchResult, page: str) -> str:
    """The engine's snippet and the page's text, once if the page repeats it."""
    return page if _has(page, result.snippet) else "\n".join(part for part in (result.snippet, page) if part)


def _has(text: str, part: str) -> bool:
    return " ".join(part.strip(". \u2026").split()) in " ".join(text.split())


async def _in_time(reader: PageReader, url: str, within_s: float) -> str:
    # Results without their pages are better than no results.
    try:
        async with asyncio.timeout(within_s):
            return await reader.read(url) if url else ""
    except TimeoutError:
        return ""


def _inert(found: Found) -> Found:
    return dataclasses.replace(found, results=tuple(inert_result(result) for result in found.results))


def _reply(found: Found, tool: str) -> SearchReply:
    status = "ok" if found.results else "no_results"
    # An answer that is no failure has passed the backend's reader, so an empty one says that nothing matches.
    return SearchReply(
        found.results,
        tool,
        status=status,
        backend=found.backend,
        cost_usd=found.cost_usd,
        empty_checked=not found.results,
    )


def _grounded(reply: SearchReply, found: Grounding, asked_for: bool) -> SearchReply:
    missed = asked_for and found.box is None
    return dataclasses.replace(
        reply,
        box=found.box,
        grounded=found.box is not None,
        note=found.note,
        other_boxes=found.others,
        status="no_detection" if missed else reply.status,
    )


def _inside(box: tuple[int, int, int, int], image: Image.Image) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3])
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise ImageError(f"the box {list(box)} contains no pixel of an image of {image.width} x {image.height}")
    return x0, y0, x1, y1


class _KeptImages:
    """Encoded images by the hash of their bytes; when they exceed the limit, the least recently used are dropped."""

    def __init__(self, max_bytes: int):
        self._max_bytes, self._size = max_bytes, 0
        self._kept: collections.OrderedDict[str, bytes] = collections.OrderedDict()

    def put(self, data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        if name not in self._kept:
            self._kept[name] = data
            self._size += len(data)
        self._kept.move_to_end(name)
        while self._size > self._max_bytes and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])
        return name

    def get(self, name: str) -> bytes:
        if name not in self._kept:
            raise SearchFailure("unknown_image", "no image of this id is kept: send it to /v1/images again")
        self._kept.move_to_end(name)
        return self._kept[name]
