"""A team's own questions in a CSV file: question, answer, and if wanted image, answers, id, kind, search_required, category."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.formats import spreadsheet
from mmsearch_jax.data.found_images import found_images
from mmsearch_jax.data.rows import Row

_COLUMNS = (
    "id",
    "image",
    "question",
    "answer",
    "answers",
    "kind",
    "search_required",
    "category",
    "set",
    spreadsheet.LINE,
)
_FLAGS = {"": None, "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ALIASES = "|"


def records(path: Path) -> Iterator[Any]:
    """The lines of a table.

    Raises:
      DataError: see `spreadsheet.read_table`.
    """
    for record in spreadsheet.read_table(path, ("question",)):
        yield record if isinstance(record, DataError) else {**record, "set": path.stem}


def row(record: Mapping[str, str], number: int) -> Row:
    """The row of a line; columns of other names are kept in `meta`.

    `answer` is one answer as it is written; `answers` separates the accepted ones by "|".

    Raises:
      DataError: no question or answer, a flag that is neither true nor false, or an image in a column that is not read.
    """
    line, others = record[spreadsheet.LINE], {key: value for key, value in record.items() if key not in _COLUMNS}
    for key, value in others.items():
        if found_images(value):
            raise DataError(f"{key}: line {line} has an image here: the column of a row's image is 'image'")
    required = record.get("search_required", "").strip().lower()
    if required not in _FLAGS:
        raise DataError(f"search_required: line {line} has {required!r}: write true or false, or leave it empty")
    given = [record.get("answer", ""), *record.get("answers", "").split(_ALIASES)]
    image = record.get("image", "").strip()
    return Row(
        record.get("id", "").strip() or f"{record['set']}-{line}",
        PureWindowsPath(image).as_posix() if "\\" in image else image,
        fields.question(record, "question", 1 if image else 0),
        fields.answers(given),
        record.get("kind", "").strip(),
        _FLAGS[required],
        meta={key: value.strip() for key, value in others.items() if value.strip()},
        category=record.get("category", "").strip(),
        provenance=fields.provenance("csv", number, file=record["set"], line=line),
    )
