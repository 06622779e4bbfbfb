"""Tables in CSV, as programs and spreadsheets save them: byte order marks, UTF-16, semicolons or tabs, any case in the header.

A spreadsheet saves what its country uses: Excel separates with semicolons where the comma is the decimal sign, may write
`sep=;` into the first line, saves UTF-16 as "Unicode text", and the letters of one country as "CSV". The last cannot be told
from one another, so a line that is not UTF-8 is an error of that line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.formats.byte_order import byte_order

_SEPARATORS = ",;\t|"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
# A cell may hold a whole article, which is longer than the csv module allows by default.
_LONGEST_CELL = 1 << 27
LINE = "line"
"""The key of a record's first line in the file."""


def read_table(path: Path, needed: Sequence[str]) -> Iterator[dict[str, str] | DataError]:
    """Yields each row of a table: a dict by column (lower case, "_" for spaces) with the line number as `LINE`, or its error.

    Args:
      needed: columns that the table must have.

    Raises:
      DataError: no such file, a workbook, a column is missing or there twice, or a quote is never closed.
    """
    if not path.is_file():
        raise DataError(f"no CSV file at {path}: give the path of one")
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_WORKBOOKS):
        raise DataError(f"{path} is a workbook: save the sheet as CSV in UTF-8")
    mark, encoding = byte_order(head)
    csv.field_size_limit(_LONGEST_CELL)
    with path.open("rb") as file:
        file.seek(len(mark))
        # Bytes that are not text come through as marks, which the rows that have them are refused for.
        text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
        try:
            yield from _rows(text, path, needed)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not {encoding} ({error.reason}): save it as CSV in UTF-8") from error


def _rows(text: io.TextIOWrapper, path: Path, needed: Sequence[str]) -> Iterator[dict[str, str] | DataError]:
    first, skipped, separator = text.readline(), 0, ""
    while first.isspace():
        first, skipped = text.readline(), skipped + 1
    if "\0" in first:
        raise DataError(f"{path} is not text in UTF-8: save the table as CSV in UTF-8")
    declared = first.rstrip("\r\n")
    if len(declared) == 5 and declared.lower().startswith("sep="):
        first, skipped, separator = text.readline(), skipped + 1, declared[4]
    separator = separator or max(_SEPARATORS, key=lambda each: len(set(needed) & set(_header([first], each))))
    reader = csv.reader(_lines(first, text), delimiter=separator, strict=True)
    try:
        columns = _names(next(reader, []))
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read ({error}): save the table again") from error
    _check_columns(columns, needed, path)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(f"{path}, line {line}: a quote is opened and never closed: close it") from error
            yield DataError(f"not CSV: line {line} ({error}): quote the cell, and double the quotes in it")
            continue
        if any(value.strip() for value in values):
            yield _record(columns, values, line)


def _lines(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _header(lines: list[str], separator: str) -> list[str]:
    try:
        return _names(next(csv.reader(lines, delimiter=separator), []))
    except csv.Error:
        return []


def _names(cells: Sequence[str]) -> list[str]:
    names = ["_".join(cell.lower().split()) for cell in cells]
    while names and not names[-1]:
        names.pop()
    return names


def _check_columns(columns: list[str], needed: Sequence[str], path: Path) -> None:
    if missing := [name for name in needed if name not in columns]:
        shown = ", ".join(columns)[:200].encode(errors="backslashreplace").decode()
        raise DataError(
            f"{path} has no column {', '.join(missing)}: its first line names {shown or 'none'}; rename a column there"
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path} has two columns named {', '.join(twice)}: rename or remove one")
    if LINE in columns or "" in columns:
        raise DataError(f"{path} has a column named {LINE if LINE in columns else 'nothing'}: give it another name")


def _record(columns: list[str], values: list[str], line: int) -> dict[str, str] | DataError:
    if any(value.strip() for value in values[len(columns) :]):
        return DataError(
            f"not CSV: line {line} has {len(values)} values for {len(columns)} columns: quote the longer cell"
        )
    record = dict(zip(columns, (*values, *[""] * len(columns)), strict=False))
    for name, value in record.items():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            before = value[max(0, error.start - 20) : error.start]
            return DataError(f"{name}: line {line} is not UTF-8 after {before!r}: save the table as CSV in UTF-8")
    return record | {LINE: str(line)}
