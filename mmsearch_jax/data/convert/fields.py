"""Reads fields of foreign records: strings, lists, JSON inside strings, images in every spelling met so far."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from mmsearch_jax.core.errors import DataError

IMAGE_MARK = "<image>"
"""Stands in a prompt where an image was, in LLaMA-Factory's and verl's rows alike."""


def text(record: Mapping[str, Any], field: str) -> str:
    """A string that is not empty.

    Raises:
      DataError: it is missing, empty or no string.
    """
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{field}: must be a non-empty string, not {_shown(value)}")
    return value.strip()


def mapping(record: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """An object, be it spelt as JSON in a string; empty where it is missing.

    Raises:
      DataError: it is something else.
    """
    value = _parsed(record.get(field), field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{field}: must be an object, not {_shown(value)}")
    return value


def strings(value: Any, field: str) -> list[str]:
    """A list of strings, from a list, one string, or a list spelt as JSON in a string; numbers become strings.

    Raises:
      DataError: something else stands there.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [value]
    value = _parsed(value, field)
    if value is None:
        return []
    values = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str | int | float) for item in values):
        raise DataError(f"{field}: must list strings, not {_shown(value)}")
    return [str(item) for item in values if not (isinstance(item, float) and math.isnan(item))]


def answers(gold: Any, aliases: Any = None) -> tuple[str, ...]:
    """The gold answer first, then its aliases, none twice.

    Raises:
      DataError: there is no answer at all.
    """
    found = [*strings(gold, "ground_truth"), *strings(aliases, "candidate_answers")]
    kept = tuple(dict.fromkeys(answer.strip() for answer in found if answer.strip()))
    if not kept:
        raise DataError("ground_truth: there is no answer")
    return kept


def images(record: Mapping[str, Any], field: str = "images") -> tuple[str | bytes, ...]:
    """The images of a record: {bytes, path} structs, bytes, paths, URLs, base64 strings; one or a list of them.

    Raises:
      DataError: one of them is none of these, or empty.
    """
    value = record.get(field)
    if value is None:
        return ()
    return tuple(_image(item, field) for item in (value if isinstance(value, list | tuple) else [value]))


def flag(record: Mapping[str, Any], field: str, default: bool | None = None) -> bool | None:
    """True or false; None where something else stands there, `default` where nothing does."""
    value = record.get(field, default)
    return value if isinstance(value, bool) else None


def without_marks(prompt: str) -> str:
    """The prompt without its image marks."""
    return prompt.replace(IMAGE_MARK, "").strip()


def with_marks(prompt: str, num_images: int) -> str:
    """The inverse of `without_marks`: as many image marks as images, then the prompt.

    Raises:
      DataError: a mark stands in the prompt itself, and would be taken for an image more.
    """
    refuse_marks(prompt)
    return IMAGE_MARK * num_images + prompt


def refuse_marks(said: str) -> None:
    """That a text has none of the marks that LLaMA-Factory and verl replace by pictures.

    Raises:
      DataError: it has one.
    """
    if found := [mark for mark in (IMAGE_MARK, "<video>", "<audio>") if mark in said]:
        raise DataError(f"text: {found[0]} stands in it, which would be taken for a picture: {said[:60]!r}")


def provenance(source: str, number: int, **more: Any) -> dict[str, str]:
    """Where a row comes from: source, row number and whatever else is known."""
    known = {key: str(value) for key, value in more.items() if value not in (None, "")}
    return {"source": source, "row": str(number), **known}


def _image(value: Any, field: str) -> str | bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path") or value.get("url") or value.get("image")
    if isinstance(value, bytes | str) and value:
        return _decoded(value) if isinstance(value, str) else value
    raise DataError(f"{field}: an image is {_shown(value)}, where bytes, a path or a URL should be")


def _decoded(value: str) -> str | bytes:
    # A path is short; what is long and of base64's alphabet is an image spelt out.
    if len(value) < 512:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return value


def _parsed(value: Any, field: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise DataError(f"{field}: not JSON ({error})") from error


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
