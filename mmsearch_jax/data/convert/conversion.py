"""Runs a conversion: every record becomes a row or a line in a file of rejected records; both are counted."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import tqdm

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.data import storage
from mmsearch_jax.data.convert import own_csv, pickles, sharegpt, verl
from mmsearch_jax.data.convert.published import find_files
from mmsearch_jax.data.convert.sets import SETS
from mmsearch_jax.data.formats import jsonl
from mmsearch_jax.data.rows import Row, embed_images, in_words, validate
from mmsearch_jax.data.usable import why_unusable

Made = TypeVar("Made")


def rejected_file(out: Path) -> Path:
    """The file that lists the rejected records of one output."""
    return out.with_name(f"rejected-{out.name}.jsonl")


@contextlib.contextmanager
def open_rejected(out: Path) -> Iterator[IO[str]]:
    """The output's file of rejected records, to write to; it is removed if nothing was rejected."""
    path = rejected_file(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A reason may quote a text that no file can hold, which is why its record was rejected.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as refused:
        yield refused
    if not path.stat().st_size:
        path.unlink()


class Source(NamedTuple):
    """Readers of a source: from a file to records, and from a record to a row."""

    records: Callable[[Path], Iterator[Any]]
    to_row: Callable[[Any, int], Row]


SOURCES = {
    "mmsearch-r1": Source(verl.records, verl.mmsearch_r1_row),
    "search-r1": Source(verl.records, verl.search_r1_row),
    "verl": Source(verl.records, verl.verl_row),
    "csv": Source(own_csv.records, own_csv.row),
    "sharegpt": Source(sharegpt.records, sharegpt.sharegpt_row),
    "rows": Source(lambda path: (row for _, row in storage.scan_rows(path)), lambda row, number: row),
}
"""Single files, by the name on the command line; "rows" are our own, in any format. `sets.SETS` has the others."""


@dataclasses.dataclass
class Counts:
    """Counts of the records. `rejected` counts by reason, which is cut before its particulars."""

    read: int = 0
    written: int = 0
    rejected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def read(
    source: str,
    path: str | Path,
    refused: IO[str],
    counts: Counts,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    embed: bool = True,
) -> Iterator[Row]:
    """Yields the usable rows of any source.

    Args:
      source: one of `SOURCES` or `SETS`.
      path: the file, or the folder of a published set.
      refused: gets a line of JSON for each unusable record, with its number and reason.
      counts: updated during reading (the caller updates `written`).
      split: of a published set.
      images: folder that image paths are relative to; by default `path`, or its folder.
      embed: put the images' bytes into the rows (each is decoded once, so that a damaged one is rejected now).

    Raises:
      DataError: an unknown source or split, or a file that cannot be read at all.
    """
    path = Path(path)
    folder = Path(images) if images is not None else (path if path.is_dir() else path.parent)
    # Absolute: some sources name their images from here, others from the folder, and both must mean the same files.
    folder = folder.absolute()
    records, to_row = _opened(source, path, folder, split)

    def usable(record: Any, number: int) -> tuple[str, Row]:
        row = checked_row(record, number, to_row, folder, embed)
        return row.id, row

    yield from sift(records, usable, refused, counts)


def sift(
    records: Iterable[Any], make: Callable[[Any, int], tuple[str, Made]], refused: IO[str], counts: Counts
) -> Iterator[Made]:
    """Yields the results of `make` for each record and its number (from 1), which begin with an id that must be unique.

    A record for which it raises `DataError`, or whose id is already used, is counted and adds a line to `refused`.
    """
    seen: dict[str, int] = {}
    for number, record in enumerate(records, 1):
        counts.read += 1
        try:
            name, made = make(record, number)
            if name in seen:
                raise DataError(f"id: '{name}' is already used by row {seen[name]}")
        except DataError as error:
            counts.rejected[_reason(error)] += 1
            refused.write(jsonl.dumps({"row": number, "reason": str(error)}) + "\n")
            continue
        seen[name] = number
        yield made


def convert(
    source: str,
    path: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    embed: bool = True,
    show_progress: bool = True,
) -> Counts:
    """Converts a source to a file of rows.

    Args:
      out: file to write; its extension gives the format. `rejected-<its name>.jsonl` is written next to it.
      source, path, split, images, embed: as for `read`.

    Raises:
      DataError: as in `read`, or there is not one usable row.
    """
    counts, out = Counts(), Path(out)
    with open_rejected(out) as refused:
        rows = read(source, path, refused, counts, split=split, images=images, embed=embed)
        with tqdm.tqdm(rows, desc=f"convert {source}", unit="row", disable=not show_progress) as bar:
            counts.written = storage.write_rows(bar, out)
    if not counts.written:
        out.unlink()
        raise DataError(f"none of {counts.read} records of {path} is a usable row: see {rejected_file(out)}")
    return counts


def require_source(source: str) -> None:
    """Raises DataError if nothing can be converted from a source of this name."""
    if source not in (*SOURCES, *SETS):
        raise DataError(f"unknown source '{source}', expected one of {', '.join([*SOURCES, *SETS])}")


def _opened(
    source: str, path: Path, folder: Path, split: str | None
) -> tuple[Iterator[Any], Callable[[Any, int], Row]]:
    if source in SETS:
        published = SETS[source]
        files = find_files(published, source, path, split)
        return published.records(files, split or "", path), lambda record, number: published.to_row(
            record, number, folder
        )
    require_source(source)
    if split:
        raise DataError(f"{source} is one file and has no split '{split}': remove --split")
    return SOURCES[source].records(path), SOURCES[source].to_row


def convert_cache(path: str | Path, out: str | Path) -> Counts:
    """Converts FVQA's pickled image-search cache to JSON lines, one per data id.

    Raises:
      DataError: the pickle is damaged or contains more than plain values.
    """
    counts, out = Counts(), Path(out)
    with open_rejected(out) as refused, out.open("w", encoding="utf-8") as kept:
        for name, entry in pickles.image_search_cache(path):
            counts.read += 1
            if isinstance(entry, DataError):
                counts.rejected[_reason(entry)] += 1
                refused.write(jsonl.dumps({"row": counts.read, "data_id": name, "reason": str(entry)}) + "\n")
            else:
                counts.written += 1
                kept.write(jsonl.dumps(entry) + "\n")
    return counts


def checked_row(record: Any, number: int, to_row: Callable[[Any, int], Row], folder: Path, embed: bool) -> Row:
    """The row of a record; with `embed` its images are bytes, which a policy can be shown (each was decoded once).

    Raises:
      DataError: the record has no row, or an invalid one.
    """
    if isinstance(record, DataError):
        raise record
    if not isinstance(record, dict | Row):
        raise DataError(f"row: a {type(record).__name__} where an object should be")
    row = storage.localised(to_row(record, number), folder)
    if problems := validate(row):
        raise DataError(in_words(problems))
    if embed:
        row = embed_images(row)
        if why := why_unusable(row):
            raise ImageError(why.removeprefix("image: "))
    return row


def _reason(error: DataError) -> str:
    """The kind of an error: its message up to the first particular; the error's type if it begins with a particular."""
    kind = re.split(r": | \(| at ", str(error), maxsplit=1)[0]
    return kind if re.fullmatch(r"[\w\[\]. ]{1,40}", kind) else type(error).__name__
