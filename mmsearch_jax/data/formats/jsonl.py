"""JSON lines: one record per line, embedded images as data URLs. For reading by eye and for small sets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.formats import json_text

_MEDIA_TYPES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def data_url(encoded: bytes) -> str:
    """The data URL of an encoded image; its first bytes give the media type."""
    kind = next((kind for magic, kind in _MEDIA_TYPES if encoded.startswith(magic)), "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"


def dumps(record: Any) -> str:
    """The record on one line."""
    return json.dumps(record, ensure_ascii=False, default=_plain)


def write(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes one line per record."""
    with path.open("w", encoding="utf-8") as out:
        out.writelines(dumps(record) + "\n" for record in records)


def read(path: Path) -> Iterator[Any]:
    """The record of each line, or the error if a line has none; None for a blank line."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield json_text.record(line) if line.strip() else None
            except DataError as error:
                yield DataError(f"{error}; each line must be one row")


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return data_url(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored in a row")
