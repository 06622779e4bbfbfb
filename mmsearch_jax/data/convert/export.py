"""Writes our rows in another project's layout, for training with other software.

Fields that a layout cannot represent are left out (docs/data.md lists them). A row that would change is never written: each
record is first read back like `convert` reads it, and the row is rejected if the two differ.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tqdm

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data import storage
from mmsearch_jax.data.convert import sharegpt, verl
from mmsearch_jax.data.convert.conversion import Counts, checked_row, open_rejected, rejected_file, sift
from mmsearch_jax.data.formats import jsonl, parquet, tar
from mmsearch_jax.data.rows import Row, read_image

_COMMON = ("id", "images", "question", "answers", "search_required")


class Form(NamedTuple):
    """A layout.

    Attributes:
      writers: by the file's extension.
      record: from a row and its number to a record.
      row: from a record and its number to a row.
      holds: the fields of a row that are equal after reading it back.
      image_files: whether images are separate files next to the file.
    """

    writers: Mapping[str, Callable[[Any, Path], None]]
    record: Callable[..., dict[str, Any]]
    row: Callable[[dict[str, Any], int], Row]
    holds: tuple[str, ...]
    image_files: bool = False


def _parquet(columns: Any) -> dict[str, Callable[[Any, Path], None]]:
    return {".parquet": functools.partial(parquet.write_plain, columns=columns)}


FORMS = {
    "sharegpt": Form(
        {".json": sharegpt.write, ".jsonl": jsonl.write},
        sharegpt.sharegpt_record,
        sharegpt.sharegpt_row,
        (*_COMMON, "category", "turns"),
        image_files=True,
    ),
    "verl": Form(_parquet(verl.COLUMNS), verl.verl_record, verl.verl_row, (*_COMMON, "category")),
    "mmsearch-r1": Form(_parquet(verl.COLUMNS), verl.mmsearch_r1_record, verl.mmsearch_r1_row, (*_COMMON, "category")),
    "search-r1": Form(_parquet(verl.SEARCH_R1_COLUMNS), verl.search_r1_record, verl.search_r1_row, _COMMON),
}
"""By the name on the command line, which is also the source's name for `convert`."""


def export(
    form: str, path: str | Path, out: str | Path, *, prompt_style: str = "paper", show_progress: bool = True
) -> Counts:
    """Writes a file of rows in another layout, with the images' bytes in it, or as files in a folder next to it.

    Args:
      form: one of `FORMS`.
      path: our rows, in any format.
      out: file to write; `rejected-<its name>.jsonl` is written next to it, "sharegpt" writes images to `<its name>_images`.
      prompt_style: one of `protocol.PROMPT_STYLES`, for the prompts in conversations.

    Raises:
      DataError: an unknown layout or extension, the rows cannot be read, or none can be exported.
    """
    if form not in FORMS:
        raise DataError(f"unknown layout '{form}', expected one of {', '.join(FORMS)}")
    path, out, layout, counts = Path(path), Path(out), FORMS[form], Counts()
    if out.suffix not in layout.writers:
        raise DataError(f"{out.name} is not a file of {form}: its name must end in {' or '.join(layout.writers)}")
    if layout.image_files:
        layout = layout._replace(record=functools.partial(layout.record, prompt_style=prompt_style))
    rows = tqdm.tqdm(storage.scan_rows(path), desc=f"export {form}", unit="row", disable=not show_progress)

    def make(scanned: storage.Scanned, number: int) -> tuple[str, dict[str, Any]]:
        row = checked_row(scanned.row, number, lambda row, _: row, path.parent, embed=True)
        return row.id, _record(row, number, layout, out)

    with open_rejected(out) as refused, storage.whole(out) as partial:
        layout.writers[out.suffix](sift(rows, make, refused, counts), partial)
        counts.written = counts.read - counts.rejected.total()
        if not counts.written:
            raise DataError(f"none of {counts.read} rows of {path} can be exported: see {rejected_file(out)}")
    return counts


def _record(row: Row, number: int, form: Form, out: Path) -> dict[str, Any]:
    """The record of a row that is equal after reading it back; writes the image files that it names."""
    row = _stripped(row)
    files: dict[str, bytes] = {}
    if form.image_files:
        for i, image in enumerate(map(read_image, row.images)):
            files[f"{out.stem}_images/{number:06d}-{i}.{tar.extension(image)}"] = image
        row = dataclasses.replace(row, image=next(iter(files), ""), more_images=tuple(files)[1:])
    record = form.record(row, number)
    back = form.row(record, number)
    for field in form.holds:
        before, after = getattr(row, field), getattr(back, field)
        if before != after:
            raise DataError(f"{field}: would be read back as {_shown(after)} instead of {_shown(before)}")
    for name, image in files.items():
        place = out.parent / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(image)
    return record


def _stripped(row: Row) -> Row:
    """The row without white space around texts and without crop boxes, which no layout can represent."""
    turns = tuple(
        dataclasses.replace(
            turn,
            text=turn.text.strip(),
            box=None,
            observation=None if turn.observation is None else turn.observation.strip(),
        )
        for turn in row.turns
    )
    answers = tuple(dict.fromkeys(answer.strip() for answer in row.answers))
    return dataclasses.replace(row, question=row.question.strip(), answers=answers, turns=turns)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
