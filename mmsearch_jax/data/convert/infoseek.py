"""InfoSeek: JSON lines of questions about OVEN's images, and a file of question types for validation.

`answer_eval` lists the aliases of `answer`; for a numerical question it is {"wikidata": number, "range": [low, high]}, or a
list with this object. The test split is published without answers. Layout: github.com/edchengg/infoseek_eval.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.convert.published import Files, PublishedSet, find_image
from mmsearch_jax.data.formats import jsonl
from mmsearch_jax.data.rows import Row

_IMAGES = ("infoseek_images", "oven_images")


def _records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    for path in files[0]:
        yield from (record for record in jsonl.read(path) if record is not None)


def _row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    name, question = fields.text(record, "data_id"), fields.question(record, "question")
    aliases = record.get("answer_eval")
    span = _range(aliases)
    meta = {"answer_range": json.dumps(span)} if span else {}
    if kind := _question_types(folder).get(name):
        meta["question_type"] = kind
    return Row(
        name,
        find_image(folder, _IMAGES, fields.text(record, "image_id")),
        question,
        fields.answers(record.get("answer"), None if span else aliases),
        "",
        None,
        meta=meta,
        provenance=fields.provenance("infoseek", number, split=record.get("data_split"), image=record["image_id"]),
    )


def _range(value: Any) -> list[float] | None:
    """The range of a numerical answer; None if the answers are words."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, Mapping):
        return None
    span = value.get("range")
    if not isinstance(span, list) or len(span) != 2 or not all(isinstance(end, int | float) for end in span):
        raise DataError(f"answer_eval: a numerical answer needs a range of two numbers, not {span!r}")
    return span


@functools.lru_cache(maxsize=4)
def _question_types(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("infoseek_*_qtype.jsonl")):
        for record in jsonl.read(path):
            if isinstance(record, Mapping) and "data_id" in record:
                found[str(record["data_id"])] = str(record.get("question_type", ""))
    return found


INFOSEEK = PublishedSet(
    ("train", "val", "test", "human"),
    (("infoseek_{split}.jsonl",),),
    _records,
    _row,
    "infoseek_images/ or oven_images/, with <image_id>.jpg in it or in a folder of a shard",
)
