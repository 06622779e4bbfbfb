"""ArrayRecord: random access to records by number, which a global shuffle needs. The training format.

A record is a JSON head followed by the unchanged bytes of the embedded images: in JSON they would be base64, a third larger and
decoded at each read. Layout: b"MMR1", the head's length (uint32, little-endian), head, images in order. In the head an image is
{"bytes": its length}. docs/data.md has a reader in ten lines.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.staging import local_copy
from mmsearch_jax.data.formats import json_text

_MAGIC = b"MMR1"
_HEAD = struct.Struct("<4sI")
# Random access reads single records; a larger group would be read and decompressed as a whole for each of them.
_WRITER_OPTIONS = "group_size:1"
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


def encode(record: dict[str, Any]) -> bytes:
    """A record as bytes."""
    blobs: list[bytes] = []

    def set_aside(value: Any) -> Any:
        if not isinstance(value, bytes):
            raise TypeError(f"a {type(value).__name__} cannot be stored in a row")
        blobs.append(value)
        return {"bytes": len(value)}

    # The encoder visits images in the order of the reader, so lengths suffice to locate each image.
    head = json.dumps(record, ensure_ascii=False, default=set_aside).encode()
    return b"".join((_HEAD.pack(_MAGIC, len(head)), head, *blobs))


def decode(encoded: bytes) -> Any:
    """The record of `encode`.

    Raises:
      DataError: these bytes are not a record in this format, or are cut short.
    """
    if len(encoded) < _HEAD.size or encoded[:4] != _MAGIC:
        raise DataError("not a row in our format: write the set with `mmsearch data convert`")
    _, length = _HEAD.unpack_from(encoded)
    place = _HEAD.size + length

    def put_back(value: dict[str, Any]) -> Any:
        nonlocal place
        if value.keys() != {"bytes"} or not isinstance(value["bytes"], int):
            return value
        start, place = place, place + value["bytes"]
        return encoded[start:place]

    try:
        record = json_text.record(encoded[_HEAD.size : place], put_back)
    except DataError as error:
        raise DataError(f"the row's head is damaged ({error}): write the set again") from error
    if place != len(encoded):
        raise DataError(f"the row has {len(encoded)} bytes, but its head says {place}: write the set again")
    return record


class ArrayRecordFile:
    """One file, read by record number. It can be pickled (a worker process opens the file again).

    Raises:
      DataError: no such file, or it is cut short or not an ArrayRecord file.
    """

    def __init__(self, path: str | Path):
        self.path = local_copy(path)
        self._open()

    def _open(self) -> None:
        if not self.path.is_file():
            raise DataError(f"no ArrayRecord file at {self.path}: make one with `mmsearch data convert`")
        self._reader = array_record_module.ArrayRecordReader(str(self.path), options=_READER_OPTIONS)
        # A file without its footer opens without an error, as an empty one.
        if not self._reader.ok():
            raise DataError(f"{self.path} is cut short or not an ArrayRecord file: copy or write it again")

    def __len__(self) -> int:
        return self._reader.num_records()

    def __getitem__(self, number: int) -> Any:
        """The record with this number.

        Raises:
          DataError: the record is damaged.
        """
        try:
            # As a range: the reader sorts a list of numbers by group, for which it makes a table of all groups at each call
            # (4 ms in a million rows, against 3 us).
            (encoded,) = self._reader.read(number, number + 1)
        except (RuntimeError, ValueError, IndexError) as error:
            raise DataError(f"the record cannot be read ({str(error)[:120]}): write the set again") from error
        return decode(encoded)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path = path
        self._open()


def write(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes one file.

    Raises:
      DataError: the file cannot be written completely.
    """
    writer = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)
    try:
        for record in records:
            writer.write(encode(record))
    finally:
        writer.close()
    if not array_record_module.ArrayRecordReader(str(path)).ok():
        raise DataError(f"{path} could not be written completely: is the disk full?")


def read(path: Path) -> Iterator[Any]:
    """Every record in order, or the error if one cannot be read."""
    file = ArrayRecordFile(path)
    for number in range(len(file)):
        try:
            yield file[number]
        except DataError as error:
            yield error
