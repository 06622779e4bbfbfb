"""The row: one question about an image, with its gold answers and (for SFT) its conversation.

This module defines rows, their validation, and the spelling of a conversation's turns (`protocol`). `formats/` stores rows. The
module does not depend on tokens, tools or worlds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.core.characters import brief, brief_name, half_character
from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.core.protocol import Answer, Invalid, parse_turn
from mmsearch_jax.core.search_api import Box
from mmsearch_jax.data.found_images import found_images, plain_values
from mmsearch_jax.images import image_urls

SCHEMA_VERSION = 2
"""Version 1 has one image by path and no category, provenance or crop boxes. Rows without a version are read as version 1."""
KINDS = ("visual", "whole_image", "crop", "two_hop")
_REQUIRED = ("id", "image", "question", "answers")
_SHOWN_PROBLEMS = 12


@dataclasses.dataclass(frozen=True)
class Placement:
    """Position of an entity in the image: gold, used to score grounding and never shown to policy or server."""

    entity: str
    box: Box
    """x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive."""


@dataclasses.dataclass(frozen=True)
class ConversationTurn:
    """One turn of an SFT conversation: the policy's text, and the observation (None after the answer).

    The text contains the tool call in the grammar of `protocol`; `box` is the crop that it led to, if known.
    """

    text: str
    observation: str | None = None
    box: Box | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One question about an image.

    Attributes:
      image: a path (made absolute by the readers), a URL, or the encoded bytes; "" if the question has none.
      answers: the gold answer first, then its aliases.
      kind: what the question needs, one of `KINDS`; "" if unknown.
      search_required: None if it was not measured.
      target: the placement that the question is about (an index into `placements`), or None.
      meta: how the question was made (form, attribute, ...); neither policy nor server sees it.
      turns: the SFT conversation; empty if there is none.
      category: the taxonomy's category of the question's subject; "" if it has none.
      provenance: where the row comes from (source, split, row, licence, ...).
      more_images: additional images, in the form of `image`.
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
        """Number of entities in the image."""
        return len(self.placements)

    @property
    def images(self) -> tuple[str | bytes, ...]:
        """All images, that of `image` first."""
        return ((self.image,) if self.image else ()) + self.more_images


_FIELDS = frozenset({"schema", *(field.name for field in dataclasses.fields(Row))})


def read_image(image: str | bytes) -> bytes:
    """The encoded bytes of a row's image, from a file, a URL or memory.

    Raises:
      ImageError: no such file, not a regular one, or the URL cannot be fetched.
    """
    if isinstance(image, bytes):
        return image
    if image.startswith(image_urls.SCHEMES):
        return image_urls.read_url(image)
    check_file(image)
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise ImageError(f"no image can be read at {brief_name(image)} ({error.strerror})") from error


def check_file(path: str) -> None:
    """Checks that a path names a regular file: a pipe or a device would be read forever.

    Raises:
      ImageError: it does not.
    """
    try:
        place = Path(path)
        if place.is_file():
            return
        what = "is a directory" if place.is_dir() else "is not a regular file" if place.exists() else "does not exist"
    except (OSError, ValueError) as error:
        what = f"is not a path ({error.strerror if isinstance(error, OSError) else error})"
    raise ImageError(f"no image can be read at {brief_name(path)}, which {what}: check the path")


def embed_images(row: Row, urls: bool = True) -> Row:
    """The row with the bytes of its images instead of references.

    Args:
      urls: also fetch the images that are given by an address.

    Raises:
      ImageError: an image cannot be read.
    """

    def embedded(image: str | bytes) -> str | bytes:
        remote = isinstance(image, str) and image.startswith(image_urls.SCHEMES)
        return image if not image or (remote and not urls) else read_image(image)

    return dataclasses.replace(row, image=embedded(row.image), more_images=tuple(map(embedded, row.more_images)))


def to_record(row: Row) -> dict[str, Any]:
    """The row as a dict of plain values (strings, numbers, lists, and bytes for embedded images), with its version."""
    return {"schema": SCHEMA_VERSION, **dataclasses.asdict(row)}


def from_record(record: Any) -> Row:
    """The row of a record of any version up to the current one.

    Raises:
      DataError: the record is not a valid row; the message names every wrong field and the reason.
    """
    if problems := list(_problems(record)):
        raise DataError(in_words([_named(field, reason) for field, reason in problems]))
    return Row(
        id=str(record["id"]),
        image=record["image"],
        question=record["question"],
        answers=tuple(record["answers"]),
        kind=record.get("kind") or "",
        search_required=record.get("search_required"),
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
    """All errors of a row (or of a row's record) as "field: reason"; empty if it is valid."""
    record = to_record(row) if isinstance(row, Row) else row
    return [f"{field}: {reason}" for field, reason in _problems(record)]


def in_words(problems: Sequence[str]) -> str:
    """The errors of a row in one line; of very many, the first ones and how many follow."""
    more = len(problems) - _SHOWN_PROBLEMS
    return "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more errors" if more > 0 else "")


def _named(field: str, reason: str) -> str:
    return reason if reason.startswith("the row ") else f"{field}: {reason}"


def _box(values: Any) -> Box:
    left, top, right, bottom = map(int, values)
    return left, top, right, bottom


def _problems(record: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(record, Mapping):
        yield "row", f"the row must be an object, not {_a(record)}"
        return
    version = record.get("schema", 1)
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        yield "schema", f"version {brief(version)}, but this program reads 1 to {SCHEMA_VERSION}: use a newer one"
        return
    if missing := [field for field in _REQUIRED if field not in record]:
        yield missing[0], f"the row has no {', '.join(map(repr, missing))}"
    # A missing field has a sound value here, so that it is named once.
    record = {"id": "0", "image": "", "question": "?", "answers": ("?",), **record}
    if isinstance(record["id"], bool) or not isinstance(record["id"], str | int) or not str(record["id"]):
        yield "id", f"must be a non-empty string, not {brief(record['id'])}"
    if not isinstance(record["question"], str) or not record["question"].strip():
        yield "question", "must be a non-empty string"
    yield from _image_problems(record)
    answers = record["answers"]
    if not isinstance(answers, list | tuple) or not answers:
        yield "answers", "must list at least one non-empty string"
    elif not all(isinstance(answer, str) and answer.strip() for answer in answers):
        yield "answers", "must contain only non-empty strings"
    if record.get("kind") not in (None, "", *KINDS):
        yield "kind", f"unknown kind {brief(record['kind'])}, expected one of {', '.join(KINDS)}, or an empty one"
    if not isinstance(record.get("search_required"), bool | None):
        yield "search_required", f"must be true, false or null, not {brief(record['search_required'])}"
    if not isinstance(record.get("category") or "", str):
        yield "category", f"must be a string, not {_a(record['category'])}"
    for field in ("meta", "provenance"):
        values = record.get(field) or {}
        if not isinstance(values, Mapping) or not all(isinstance(v, str) for pair in values.items() for v in pair):
            yield field, "must map strings to strings"
    yield from _placement_problems(record)
    yield from _turn_problems(record.get("turns") or ())
    yield from _text_problems(record)


def _image_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not isinstance(record["image"], str | bytes):
        yield "image", f"must be a path, a URL or bytes, not {_a(record['image'])}"
    more = record.get("more_images") or ()
    if not isinstance(more, list | tuple) or not all(isinstance(image, str | bytes) and image for image in more):
        yield "more_images", "must list paths, URLs or bytes"
    elif more and not record["image"]:
        yield "more_images", "there are more images, but the first is missing"
    for key, value in record.items():
        if key not in _FIELDS and found_images(value):
            yield str(key), "holds an image, but rows have theirs in 'image' and 'more_images': rename it"


def _text_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields with a text that no file can hold: half a character, as a cut in the middle of an emoji leaves."""
    for field in _FIELDS & record.keys():
        for text in plain_values(record[field], keys=True):
            if isinstance(text, str) and (half := half_character(text)) is not None:
                yield field, f"contains half a character ({half}): remove or replace it"
                break


def _placement_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    placements = record.get("placements") or ()
    if not isinstance(placements, list | tuple):
        yield "placements", f"must be a list, not {_a(placements)}"
        return
    for i, placement in enumerate(placements):
        if not isinstance(placement, Mapping) or not isinstance(placement.get("entity"), str):
            yield f"placements[{i}]", "must have an 'entity' and a 'box'"
        elif not _is_box(placement.get("box")):
            yield f"placements[{i}].box", f"must be x0 < x1 and y0 < y1 in pixels, not {brief(placement.get('box'))}"
    target = record.get("target")
    if target is not None and (type(target) is not int or not 0 <= target < len(placements)):
        yield "target", f"{brief(target)} is not an index into {len(placements)} placements"


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
            yield f"turns[{i}].box", f"must be x0 < x1 and y0 < y1 in pixels, not {brief(turn['box'])}"


def _is_box(box: Any) -> bool:
    if not isinstance(box, list | tuple) or len(box) != 4:
        return False
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 31 for v in box):
        return False
    return box[0] < box[2] and box[1] < box[3]


def _a(value: Any) -> str:
    return f"a {type(value).__name__}"
