"""JSON lines: one record per line, embedded images as data URLs. For reading by eye and for small sets."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.formats import json_text
from mmsearch_jax.data.formats.byte_order import byte_order

_HEAD = 2**20
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
    """The record of each line, or the error if a line has none; None for a blank line.

    Raises:
      DataError: the file is not in the encoding that its byte order mark names.
    """
    for line in _lines(path):
        try:
            yield json_text.record(line) if line.strip() else None
        except DataError as error:
            yield DataError(f"{error}; each line must be one row")


def _lines(path: Path) -> Iterator[bytes]:
    """The lines in UTF-8. PowerShell and Excel save UTF-16 with a byte order mark, whose bytes are no lines."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        mark, encoding = byte_order(head[:4])
        if encoding == "utf-8" or not _has_lines(head[len(mark) :], encoding):
            file.seek(len(mark) if encoding == "utf-8" else 0)
            yield from file
            return
        file.seek(len(mark))
        text = io.TextIOWrapper(file, encoding, errors="surrogatepass", newline="\n")
        try:
            yield from (line.encode(errors="surrogatepass") for line in text)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not {encoding} ({error.reason}): save it in UTF-8") from error


def _has_lines(head: bytes, encoding: str) -> bool:
    """Whether the file's line ends are those of the encoding. If not, its mark belongs to one odd line among lines in UTF-8,
    and reading the file by it would lose all of them."""
    return b"\n" not in head or "\n" in head.decode(encoding, errors="replace")


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return data_url(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored in a row")
