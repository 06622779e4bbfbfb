"""SimpleVQA and Dyn-VQA: questions with short answers, and images as base64 or URLs in the records.

SimpleVQA: Parquet with `image` in base64 and `language` EN or CN. Dyn-VQA: JSON lines, one file per language and date (the
latest is read); some of its image URLs no longer work. Layouts: m-a-p/SimpleVQA, github.com/Alibaba-NLP/OmniSearch.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.convert.published import Files, PublishedSet
from mmsearch_jax.data.formats import jsonl, parquet
from mmsearch_jax.data.rows import Row
from mmsearch_jax.images import image_urls


def _simple_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    for path in files[0]:
        records = parquet.read_plain(path) if path.suffix == ".parquet" else jsonl.read(path)
        yield from (record for record in records if record is not None)


def _simple_row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    meta = {
        key: str(record[key])
        for key in ("language", "original_category", "source", "atomic_question", "atomic_fact")
        if record.get(key)
    }
    return Row(
        f"simplevqa-{record.get('data_id')}",
        _picture(record),
        fields.question(record, "question"),
        fields.answers(record.get("answer")),
        "",
        None,
        meta=meta,
        category=str(record.get("vqa_category") or ""),
        provenance=fields.provenance("simplevqa", number, split="test"),
    )


def _picture(record: Mapping[str, Any]) -> bytes:
    value = record.get("image")
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value:
        raise DataError("image: there is no image")
    if value.startswith("data:"):
        return image_urls.read_url(value)
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise DataError(f"image: not base64 ({error})") from error


def _dyn_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    for record in jsonl.read(files[0][-1]):
        if isinstance(record, Mapping):
            yield {**record, "language": split}
        elif record is not None:
            yield record


def _dyn_row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    images = fields.images(record, "image_url")
    if not images:
        raise DataError("image_url: there is no image")
    language = str(record["language"])
    return Row(
        f"dynvqa-{language}-{record.get('question_id', number)}",
        images[0],
        fields.question(record, "question", len(images)),
        fields.answers(record.get("answer")),
        "",
        None,
        meta={"language": language},
        more_images=images[1:],
        provenance=fields.provenance("dynvqa", number, split=language),
    )


SIMPLEVQA = PublishedSet(
    ("test",),
    (("data/{split}*.parquet", "{split}*.parquet", "{split}*.jsonl"),),
    _simple_records,
    _simple_row,
    "in the rows",
)
DYNVQA = PublishedSet(
    ("en", "zh"),
    (("DynVQA_{split}*.jsonl", "DynVQA_{split}/DynVQA_{split}*.jsonl"),),
    _dyn_records,
    _dyn_row,
    "fetched from their URLs; paths that replace `image_url` are relative to the folder",
)
