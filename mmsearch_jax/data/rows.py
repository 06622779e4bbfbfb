"""The row: one question about an image, with its gold answers and (for SFT) its conversation.

This module knows what a row is and what makes one unusable, and how the conversation's turns must be spelt (`protocol`).
How rows are stored is `formats/`; of tokens, tools and worlds it knows nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.core.protocol import Answer, Invalid, parse_turn
from mmsearch_jax.core.search_api import Box
from mmsearch_jax.images import image_urls

SCHEMA_VERSION = 2
"""1: one image by path, no category, provenance or crop boxes. Rows without a version are of version 1, and are read."""
KINDS = ("visual", "whole_image", "crop", "two_hop")
_REQUIRED = ("id", "image", "question", "answers", "kind", "search_required")


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an entity stands in the image: gold, used to score grounding and never shown to policy or server."""

    entity: str
    box: Box
    """x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive."""


@dataclasses.dataclass(frozen=True)
class ConversationTurn:
    """One turn of an SFT conversation: what the policy writes, and what came back (None after the answer).

    The tool call stands in the text, in the grammar of `protocol`; `box` is the crop that it led to, where one is known.
    """

    text: str
    observation: str | None = None
    box: Box | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One question about an image.

    Attributes:
      image: a path (made absolute by the readers), a URL, or the encoded bytes; "" where the question has none.
      answers: the gold answer first, then its aliases.
      kind: what the question needs, one of `KINDS`; "" where nobody has said.
      search_required: None where nobody has measured it.
      target: the placement that the question is about (an index into `placements`), or None.
      meta: how the question was made (form, attribute, ...); neither policy nor server sees it.
      turns: the SFT conversation, empty where there is none.
      category: the taxonomy's word for the question's subject; "" where it has none.
      provenance: where the row comes from (source, split, row, licence, ...).
      more_images: further images, as `image`.
    """

    id: str
    image: str | bytes
    question: str
    answers: tuple[str, ...]
    kind: str
    search_required: bool | None
    placements: tuple[Placement, ...] = ()
    target: int | None = None
    meta: dict[str, str] = dataclasses.field(default_factory=dict)
    turns: tuple[ConversationTurn, ...] = ()
    category: str = ""
    provenance: dict[str, str] = dataclasses.field(default_factory=dict)
    more_images: tuple[str | bytes, ...] = ()

    @property
    def num_entities(self) -> int:
        """How many entities stand in the image."""
        return len(self.placements)

    @property
    def images(self) -> tuple[str | bytes, ...]:
        """All images, the question's own first."""
        return ((self.image,) if self.image else ()) + self.more_images


def read_image(image: str | bytes) -> bytes:
    """The encoded bytes of a row's image, wherever they are.

    Raises:
      ImageError: no such file, or nothing to be fetched from the URL.
    """
    if isinstance(image, bytes):
        return image
    if image.startswith(image_urls.SCHEMES):
        return image_urls.read_url(image)
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise ImageError(f"no image can be read at {image or 'an empty path'} ({error.strerror})") from error


def embed_images(row: Row) -> Row:
    """The row with the bytes of its images in place of references.

    Raises:
      ImageError: an image cannot be read.
    """
    image = read_image(row.image) if row.image else row.image
    return dataclasses.replace(row, image=image, more_images=tuple(map(read_image, row.more_images)))


def to_record(row: Row) -> dict[str, Any]:
    """The row as a dict of plain values (strings, numbers, lists, and bytes for embedded images), with its version."""
    return {"schema": SCHEMA_VERSION, **dataclasses.asdict(row)}


def from_record(record: Any) -> Row:
    """The row that a record of any version up to ours describes.

    Raises:
      DataError: the record is no row; names the first field that is wrong, and why.
    """
    problem = next(_problems(record), None)
    if problem:
        raise DataError(problem[1] if problem[1].startswith("the row ") else ": ".join(problem))
    return Row(
        id=str(record["id"]),
        image=record["image"],
        question=record["question"],
        answers=tuple(record["answers"]),
        kind=record["kind"],
        search_required=record["search_required"],
        placements=tuple(Placement(p["entity"], _box(p["box"])) for p in record.get("placements") or ()),
        target=record.get("target"),
        meta=dict(record.get("meta") or {}),
        turns=tuple(
            ConversationTurn(t["text"], t.get("observation"), _box(t["box"]) if t.get("box") else None)
            for t in record.get("turns") or ()
        ),
        category=record.get("category") or "",
        provenance=dict(record.get("provenance") or {}),
        more_images=tuple(record.get("more_images") or ()),
    )


def validate(row: Row | Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a row (or with a record of one), as "field: reason"; empty if it is sound."""
    record = to_record(row) if isinstance(row, Row) else row
    return [f"{field}: {reason}" for field, reason in _problems(record)]


def _box(values: Any) -> Box:
    left, top, right, bottom = map(int, values)
    return left, top, right, bottom


def _problems(record: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(record, Mapping):
        yield "row", f"the row is no object but {_a(record)}"
        return
    missing = [field for field in _REQUIRED if field not in record]
    yield from ((field, f"the row has no '{field}'") for field in missing)
    if missing:
        return
    version = record.get("schema", 1)
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        yield "schema", f"version {version!r}, but this program reads 1 to {SCHEMA_VERSION}: use a newer one"
        return
    if not isinstance(record["id"], str | int) or not str(record["id"]):
        yield "id", f"must be a non-empty string, not {record['id']!r}"
    if not isinstance(record["question"], str) or not record["question"].strip():
        yield "question", "must be a non-empty string"
    yield from _image_problems(record)
    answers = record["answers"]
    if not isinstance(answers, list | tuple) or not answers:
        yield "answers", "must list at least one non-empty string"
    elif not all(isinstance(answer, str) and answer.strip() for answer in answers):
        yield "answers", "must hold non-empty strings only"
    if record["kind"] not in ("", *KINDS):
        yield "kind", f"unknown kind {record['kind']!r}, expected one of {', '.join(KINDS)}, or an empty one"
    if record["search_required"] not in (True, False, None):
        yield "search_required", f"must be true, false or null, not {record['search_required']!r}"
    if not isinstance(record.get("category") or "", str):
        yield "category", f"must be a string, not {_a(record['category'])}"
    for field in ("meta", "provenance"):
        values = record.get(field) or {}
        if not isinstance(values, Mapping) or not all(isinstance(v, str) for pair in values.items() for v in pair):
            yield field, "must map strings to strings"
    yield from _placement_problems(record)
    yield from _turn_problems(record.get("turns") or ())


def _image_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not isinstance(record["image"], str | bytes):
        yield "image", f"must be a path, a URL or bytes, not {_a(record['image'])}"
    more = record.get("more_images") or ()
    if not isinstance(more, list | tuple) or not all(isinstance(image, str | bytes) and image for image in more):
        yield "more_images", "must list paths, URLs or bytes"
    elif more and not record["image"]:
        yield "more_images", "there are more images, but the first is missing"


def _placement_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    placements = record.get("placements") or ()
    if not isinstance(placements, list | tuple):
        yield "placements", f"must be a list, not {_a(placements)}"
        return
    for i, placement in enumerate(placements):
        if not isinstance(placement, Mapping) or not isinstance(placement.get("entity"), str):
            yield f"placements[{i}]", "must have an 'entity' and a 'box'"
        elif not _is_box(placement.get("box")):
            yield f"placements[{i}].box", f"must be x0 < x1 and y0 < y1 in pixels, not {placement.get('box')!r}"
    target = record.get("target")
    if target is not None and (not isinstance(target, int) or not 0 <= target < len(placements)):
        yield "target", f"{target!r} is no index into {len(placements)} placements"


def _turn_problems(turns: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(turns, list | tuple):
        yield "turns", f"must be a list, not {_a(turns)}"
        return
    for i, turn in enumerate(turns):
        last = i + 1 == len(turns)
        if not isinstance(turn, Mapping) or not isinstance(turn.get("text"), str):
            yield f"turns[{i}]", "must have a 'text'"
            continue
        observation, action = turn.get("observation"), parse_turn(turn["text"]).action
        if isinstance(action, Invalid):
            yield f"turns[{i}].text", f"not a turn of the grammar: {action.why}"
        elif last != isinstance(action, Answer):
            yield f"turns[{i}].text", "the last turn must answer" if last else "only the last turn may answer"
        if last != (observation is None):
            yield f"turns[{i}].observation", "must be null after the answer" if last else "is missing after a search"
        elif observation is not None and not isinstance(observation, str):
            yield f"turns[{i}].observation", f"must be a string, not {_a(observation)}"
        if turn.get("box") is not None and not _is_box(turn["box"]):
            yield f"turns[{i}].box", f"must be x0 < x1 and y0 < y1 in pixels, not {turn['box']!r}"


def _is_box(box: Any) -> bool:
    if not isinstance(box, list | tuple) or len(box) != 4:
        return False
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in box):
        return False
    return box[0] < box[2] and box[1] < box[3]


def _a(value: Any) -> str:
    return f"a {type(value).__name__}"
