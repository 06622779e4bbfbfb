"""Reads fields of other projects' records: strings, lists, JSON inside strings, images in all known forms."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.formats import json_text

IMAGE_MARK = "<image>"
"""The mark for an image in a prompt, in both LLaMA-Factory's and verl's rows."""


def text(record: Mapping[str, Any], field: str) -> str:
    """A string that is not empty.

    Raises:
      DataError: it is missing, empty or not a string.
    """
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{field}: must be a non-empty string, not {_shown(value)}")
    return value.strip()


def mapping(record: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """An object, or JSON of one in a string; empty if it is missing.

    Raises:
      DataError: the field is something else.
    """
    value = _parsed(record.get(field), field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{field}: must be an object, not {_shown(value)}")
    return value


def strings(value: Any, field: str) -> list[str]:
    """A list of strings, from a list, one string, or JSON of a list in a string; numbers become strings.

    Raises:
      DataError: the value is something else.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [value]
    value = _parsed(value, field)
    if value is None:
        return []
    values = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in values):
        raise DataError(f"{field}: must list strings, not {_shown(value)}")
    return [str(item) for item in values if not (isinstance(item, float) and math.isnan(item))]


def answers(gold: Any, aliases: Any = None) -> tuple[str, ...]:
    """The gold answer first, then its aliases, without duplicates.

    Args:
      gold: one answer or a list. A string is one answer, also if it reads as a list: "[2, 3]" may be an interval.
      aliases: as for `strings`.

    Raises:
      DataError: there is no answer.
    """
    found = [gold] if isinstance(gold, str) else strings(gold, "ground_truth")
    # The gold answer once more is no list, even if it reads as one.
    if not (isinstance(aliases, str) and aliases.strip() in [answer.strip() for answer in found]):
        found = [*found, *strings(aliases, "candidate_answers")]
    kept = tuple(dict.fromkeys(answer.strip() for answer in found if answer.strip()))
    if not kept:
        raise DataError("ground_truth: there is no answer")
    return kept


def images(record: Mapping[str, Any], field: str = "images") -> tuple[str | bytes, ...]:
    """The images of a record: {bytes, path} structs, bytes, paths, URLs, base64 strings; one or a list of them.

    Raises:
      DataError: one of them has another form or is empty.
    """
    value = record.get(field)
    if value is None or value == "":
        return ()
    return tuple(image(item, field) for item in (value if isinstance(value, list | tuple) else [value]))


def flag(record: Mapping[str, Any], field: str, default: bool | None = None) -> bool | None:
    """True or false; None for another value, `default` if the field is missing."""
    value = record.get(field, default)
    return value if isinstance(value, bool) else None


def question(record: Mapping[str, Any], field: str, num_images: int = 1) -> str:
    """The question of a set that shows its images before it, without the image marks that it may have all the same.

    Raises:
      DataError: it is empty, or has another number of marks than there are images.
    """
    asked = text(record, field)
    if (marks := asked.count(IMAGE_MARK)) not in (0, num_images):
        raise DataError(f"{field}: has {marks} image marks, but there are {num_images} images")
    return text({field: without_marks(asked)}, field)


def without_marks(prompt: str) -> str:
    """The prompt without its image marks."""
    return prompt.replace(IMAGE_MARK, "").strip()


def with_marks(prompt: str, num_images: int) -> str:
    """The inverse of `without_marks`: one image mark per image, then the prompt.

    Raises:
      DataError: the prompt itself contains a mark, which would count as another image.
    """
    refuse_marks(prompt)
    return IMAGE_MARK * num_images + prompt


def refuse_marks(said: str) -> None:
    """Checks that a text has none of the marks that LLaMA-Factory and verl replace with media.

    Raises:
      DataError: it has one.
    """
    if found := [mark for mark in (IMAGE_MARK, "<video>", "<audio>") if mark in said]:
        raise DataError(f"text: contains {found[0]}, which would be read as a picture: {said[:60]!r}")


def provenance(source: str, number: int, **more: Any) -> dict[str, str]:
    """Origin of a row: source, row number and additional fields."""
    known = {key: str(value) for key, value in more.items() if value not in (None, "")}
    return {"source": source, "row": str(number), **known}


def image(value: Any, field: str) -> str | bytes:
    """One image in any of the forms of `images`.

    Raises:
      DataError: the value has another form or is empty.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path") or value.get("url") or value.get("image")
    if isinstance(value, bytes | str) and value:
        return _decoded(value) if isinstance(value, str) else value
    raise DataError(f"{field}: an image is {_shown(value)}, expected bytes, a path or a URL")


def _decoded(value: str) -> str | bytes:
    # Paths are short; a long text in base64's alphabet is an encoded image.
    if len(value) < 512:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return value


def _parsed(value: Any, field: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json_text.loads(value)
    except DataError as error:
        raise DataError(f"{field}: {error}") from error


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
