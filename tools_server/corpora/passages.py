"""Streams passages from a user's files, in the layouts of the mini-world and of Search-R1's wiki-18.

A record is `{"title", "text"}` with an optional `id` and `url`, or `{"id", "contents"}` whose contents begin with a line
that is the title in quotation marks. Files: .jsonl, .jsonl.gz, .parquet; a folder stands for its `pages.jsonl`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from tools_server.hits import Page

_FIELDS = ("id", "title", "text", "url", "contents")
_PARQUET_ROWS = 1024
"""Rows per read: a row group may be larger than the memory."""


def read_passages(paths: Iterable[Path]) -> Iterator[Page]:
    """The passages of files, in order. Those without text are skipped.

    Raises:
      DataError: a file is missing or of another format, or a record is not a passage; names file, line (row) and field.
    """
    for path in map(corpus_file, paths):
        for number, record in _records(path):
            page = _page(record, f"{path}:{number}")
            if page.text.strip():
                yield page


def corpus_file(path: Path) -> Path:
    """The file of passages at a path.

    Raises:
      DataError: there is none.
    """
    path = path / "pages.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"no corpus file at {path}: name files of passages (.jsonl, .jsonl.gz, .parquet)")
    return path


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path)
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    else:
        raise DataError(f"{path} is of no known format: passages are read from .jsonl, .jsonl.gz and .parquet")


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            # As bytes: only a line feed ends a line, not the other line separators of Unicode.
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(line, f"{path}:{number}")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged after line {number} ({error}): make or download the file again") from error


def _parsed(line: bytes, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError, too
        raise DataError(f"{place}: not JSON ({error}): each line must be one passage") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            columns = [name for name in _FIELDS if name in file.schema_arrow.names]
            batches = file.iter_batches(_PARQUET_ROWS, columns=columns)
            yield from enumerate((record for batch in batches for record in batch.to_pylist()), 1)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}): make or download it again") from error


def _page(record: Any, place: str) -> Page:
    if not isinstance(record, Mapping):
        raise DataError(f"{place}: a passage is an object with title and text, not {type(record).__name__}")
    if "contents" in record and "text" not in record:
        title, _, text = _string(record, "contents", place).partition("\n")
        title = title.strip().strip('"')
    else:
        title, text = _string(record, "title", place), _string(record, "text", place)
    return Page(title, _label(record, "url", place), text, _label(record, "id", place))


def _string(record: Mapping[str, Any], field: str, place: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        found = "is missing" if field not in record else f"is {type(value).__name__}"
        raise DataError(f"{place}: field {field!r} {found}: give title and text, or contents, as strings")
    # A lone surrogate (JSON can encode one) cannot be stored.
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _label(record: Mapping[str, Any], field: str, place: str) -> str:
    value = record.get(field)
    if value is None or isinstance(value, str):
        return "" if value is None else _string(record, field, place)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{place}: field {field!r} is {type(value).__name__}: it must be a string or a number")
