"""Rows in files of any format: JSON lines, ArrayRecord, Parquet, tar. The file's extension selects the format.

A reference to an image inside the file's folder is stored relative to it, so that a folder may be moved; the readers
make it absolute. Bytes stay bytes (in JSON lines as a data URL).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.staging import local_copy
from mmsearch_jax.data.rows import Row, from_record, to_record
from mmsearch_jax.images import image_urls

FORMATS = (".jsonl", ".array_record", ".parquet", ".tar")
"""Extensions of files of rows; each has its module of the same name in `data.formats`."""
ROWS_FILE = "rows.jsonl"
_BEGINNINGS = {".array_record": bytes.fromhex("83af70d10d884a3f"), ".parquet": b"PAR1"}


class Scanned(NamedTuple):
    """One place of a file: its number from 1 (the line number in JSON lines), and the row or the error found there."""

    number: int
    row: Row | DataError


def scan_rows(path: str | Path) -> Iterator[Scanned]:
    """Every row of a file (or of `rows.jsonl` in a folder); for a bad row, the error that says what is wrong.

    Raises:
      DataError: the file is missing, has an unknown format, or cannot be read any further.
    """
    path = existing_rows(path)
    for number, record in enumerate(_format(path).read(path), 1):
        if record is None:
            continue
        if isinstance(record, DataError):
            yield Scanned(number, record)
            continue
        try:
            yield Scanned(number, localised(from_record(record), path.parent))
        except DataError as error:
            yield Scanned(number, error)


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a file (or of `rows.jsonl` in a folder).

    Raises:
      DataError: the file is missing, or one of its rows is bad; the message names file, row and field.
    """
    return list(stream_rows(path))


def stream_rows(path: str | Path) -> Iterator[Row]:
    """Yields the rows of `read_rows` one at a time."""
    for number, row in scan_rows(path):
        if isinstance(row, DataError):
            place = "line" if existing_rows(path).suffix == ".jsonl" else "row"
            raise DataError(f"{existing_rows(path)}, {place} {number}: {row}")
        yield row


def write_rows(rows: Iterable[Row], path: str | Path) -> int:
    """Writes rows and returns their number. The file appears when it is complete.

    Raises:
      DataError: the file's extension is unknown.
    """
    path = Path(path)
    form = _format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, count = path.parent.resolve(), 0

    def records() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in rows:
            count += 1
            yield to_record(_movable(row, folder))

    with whole(path) as partial:
        form.write(records(), partial)
    return count


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file is renamed to `path` on success, so that nobody reads an incomplete file."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def localised(row: Row, folder: Path) -> Row:
    """The row as the readers return it: paths absolute from `folder`, data URLs as bytes.

    Raises:
      ImageError: a data URL is malformed.
    """

    def placed(image: str | bytes) -> str | bytes:
        if isinstance(image, bytes) or not image:
            return image
        if image.startswith("data:"):
            return image_urls.read_url(image)
        return image if image.startswith(image_urls.SCHEMES) else os.path.normpath(folder.resolve() / image)

    return dataclasses.replace(row, image=placed(row.image), more_images=tuple(map(placed, row.more_images)))


def _movable(row: Row, folder: Path) -> Row:
    def placed(image: str | bytes) -> str | bytes:
        if isinstance(image, bytes) or not image or image.startswith(image_urls.SCHEMES):
            return image
        path = Path(image).absolute()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    return dataclasses.replace(row, image=placed(row.image), more_images=tuple(map(placed, row.more_images)))


def existing_rows(path: str | Path) -> Path:
    """The file of rows that a path names: the file itself, or `rows.jsonl` in a folder.

    Raises:
      DataError: there is none, or its format is unknown.
    """
    path = local_copy(path)
    if path.is_dir():
        path = path / ROWS_FILE
    if not path.is_file():
        raise DataError(f"no rows at {path}: give a file of rows or a folder that contains {ROWS_FILE}")
    _require_format(path)
    return path


def require_rows(path: str | Path) -> Path:
    """Like `existing_rows`, and the file begins as one of its format does.

    Raises:
      DataError: see `existing_rows`; or the file is of another format than its name says.
    """
    path = existing_rows(path)
    magic = _BEGINNINGS.get(path.suffix, b"")
    with path.open("rb") as file:
        found = file.read(len(magic))
    if found != magic:
        raise DataError(
            f"{path} is no {path.suffix} file, whatever its name says: convert what it is (mmsearch data convert --help), or "
            "copy it again"
        )
    return path


def _require_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise DataError(f"{path.name} has an unknown format: its name must end in {', '.join(FORMATS)}")


def _format(path: Path) -> Any:
    _require_format(path)
    # Their libraries take longer to import than most commands take.
    return importlib.import_module(f"mmsearch_jax.data.formats{path.suffix}")
