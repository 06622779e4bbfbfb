"""Parquet: columns, for inspection with data-frame tools. Images are structs of bytes and path."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmsearch_jax.core.errors import DataError

_BOX = pa.list_(pa.int32())
IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
_COLUMNS = pa.schema(
    [
        ("schema", pa.int32()),
        ("id", pa.string()),
        ("image", IMAGE),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("kind", pa.string()),
        ("search_required", pa.bool_()),
        ("placements", pa.list_(pa.struct([("entity", pa.string()), ("box", _BOX)]))),
        ("target", pa.int32()),
        ("meta", pa.map_(pa.string(), pa.string())),
        ("turns", pa.list_(pa.struct([("text", pa.string()), ("observation", pa.string()), ("box", _BOX)]))),
        ("category", pa.string()),
        ("provenance", pa.map_(pa.string(), pa.string())),
        ("more_images", pa.list_(IMAGE)),
    ]
)
# Rows with embedded images are large, and a whole group is held in memory.
_GROUP_ROWS = 256
# Bytes that are no UTF-8, a map or a struct with a key twice, a date outside Python's range.
_NO_PYTHON_FORM = (ValueError, KeyError, OverflowError, pa.ArrowException)


def write(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes one file of rows."""
    write_plain(map(_spread, records), path, _COLUMNS)


def write_plain(records: Iterable[dict[str, Any]], path: Path, columns: pa.Schema) -> None:
    """Writes dicts of any columns, in groups of rows."""
    with pq.ParquetWriter(path, columns, compression="zstd") as writer:
        for group in _groups(records):
            writer.write_table(pa.Table.from_pylist(group, schema=columns))


def read(path: Path) -> Iterator[Any]:
    """The record of every row.

    Raises:
      DataError: the file is damaged or not a Parquet file.
    """
    for record in read_plain(path):
        yield record if isinstance(record, DataError) else _gather(record)


def read_plain(path: Path, batch_rows: int = 64) -> Iterator[Any]:
    """Every row of any Parquet file as a dict of its columns, also from other writers; the error if a value has no Python form.

    Raises:
      DataError: the file is missing, damaged or not a Parquet file, or two of its columns have one name.
    """
    if not path.is_file():
        raise DataError(f"no Parquet file at {path}: give the path of one")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise DataError(f"{path} has two columns named {', '.join(twice)}: rename or drop one")
            for batch in file.iter_batches(batch_rows):
                yield from _plain_rows(batch)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged or not a Parquet file ({first}): download or write it again") from error


def _plain_rows(batch: pa.RecordBatch) -> list[Any]:
    try:
        return batch.to_pylist(maps_as_pydicts="strict")
    except _NO_PYTHON_FORM:
        return [_plain_row(batch, number) for number in range(batch.num_rows)]


def _plain_row(batch: pa.RecordBatch, number: int) -> dict[str, Any] | DataError:
    record = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            record[name] = column[number].as_py(maps_as_pydicts="strict")
        except UnicodeDecodeError as error:
            return DataError(f"{name}: a text is not UTF-8 ({error.reason} at byte {error.start}): write it as UTF-8")
        except _NO_PYTHON_FORM as error:
            return DataError(f"{name}: the value cannot be read ({type(error).__name__}: {error}): write it again")
    return record


def _groups(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    source = iter(records)
    while group := list(itertools.islice(source, _GROUP_ROWS)):
        yield group


def _spread(record: dict[str, Any]) -> dict[str, Any]:
    more = [_image_struct(image) for image in record.get("more_images") or ()]
    return {**record, "image": _image_struct(record["image"]), "more_images": more}


def _gather(record: dict[str, Any]) -> dict[str, Any]:
    made, more = {**record, "image": _image_value(record.get("image"))}, record.get("more_images")
    if isinstance(more, list):
        made["more_images"] = [_image_value(image) for image in more]
    return made if "image" in record else record


def _image_struct(image: str | bytes) -> dict[str, Any]:
    return {"bytes": image, "path": None} if isinstance(image, bytes) else {"bytes": None, "path": image}


def _image_value(image: Any) -> Any:
    """The bytes or the path in a struct of both; a value of another form, such as a column of paths, as it is."""
    if not isinstance(image, dict) or not image.keys() & {"bytes", "path"}:
        return image
    return image.get("path") if image.get("bytes") is None else image["bytes"]
