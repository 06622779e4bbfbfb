"""MMSearch and LiveVQA, which are only for evaluation, in the layouts of their Hugging Face repositories.

MMSearch (CaraJ/MMSearch, arXiv 2409.12959): Parquet, `sample_id, query, query_image {bytes, path}, gt_answer,
alternative_gt_answers, area, subfield, timestamp, gt_requery`. LiveVQA (ONE-Lab/LiveVQA-new, arXiv 2504.05288, CC-BY-NC): JSON
or JSON lines, `id, img_path, question, Ground_Truth, Ground_Truth_List, topic, level, options`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.convert.conversion import Counts
from mmsearch_jax.data.convert.published import Files, PublishedSet, find_files, read_json
from mmsearch_jax.data.formats import jsonl, parquet
from mmsearch_jax.data.rows import Row, validate
from mmsearch_jax.data.storage import localised


def read_evaluation_set(source: str, path: Path, split: str, refused: IO[str], counts: Counts) -> Iterator[Row]:
    """The usable rows of one of `EVALUATION_SETS`; `data.convert.conversion.read` does the same for the other sets.

    Raises:
      DataError: the folder, the file or the split is missing.
    """
    published, seen = EVALUATION_SETS[source], set()
    for number, record in enumerate(published.records(find_files(published, source, path, split), split, path), 1):
        counts.read += 1
        try:
            if not isinstance(record, Mapping):
                raise record if isinstance(record, DataError) else DataError("row: must be an object")
            row = localised(published.to_row(record, number, path), path)
            problems = [*validate(row), *(["id: occurs twice"] if row.id in seen else [])]
            if problems:
                raise DataError("; ".join(problems))
        except DataError as error:
            counts.rejected[str(error).partition(":")[0]] += 1
            refused.write(jsonl.dumps({"row": number, "reason": str(error)}) + "\n")
            continue
        seen.add(row.id)
        yield row


def _mmsearch_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    for path in files[0]:
        yield from parquet.read_plain(path)


def _mmsearch_row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    images = fields.images(record, "query_image")
    meta = {key: str(record[key]) for key in ("timestamp", "gt_requery", "area") if record.get(key)}
    return Row(
        f"mmsearch-{record.get('sample_id', number)}",
        images[0] if images else "",
        fields.question(record, "query", len(images)),
        fields.answers(record.get("gt_answer"), record.get("alternative_gt_answers")),
        "",
        None,
        meta=meta,
        category=str(record.get("subfield") or record.get("area") or ""),
        more_images=images[1:],
        provenance=fields.provenance("mmsearch", number, split="end2end"),
    )


def _livevqa_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    for path in files[0]:
        if path.suffix == ".json":
            content = read_json(path)
            if not isinstance(content, list):
                raise DataError(f"{path} is not a JSON list: is it a file of LiveVQA?")
            yield from content
        else:
            yield from (record for record in jsonl.read(path) if record is not None)


def _livevqa_row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    images = fields.images(record, "img_path")
    meta = {"level": str(record["level"])} if record.get("level") is not None else {}
    if record.get("options"):
        meta["choices"] = json.dumps(fields.strings(record["options"], "options"), ensure_ascii=False)
    return Row(
        f"livevqa-{record.get('id', number)}",
        images[0] if images else "",
        fields.question(record, "question", len(images)),
        fields.answers(record.get("Ground_Truth"), record.get("Ground_Truth_List")),
        "",
        None,
        meta=meta,
        category=str(record.get("topic") or ""),
        more_images=images[1:],
        provenance=fields.provenance("livevqa", number),
    )


EVALUATION_SETS: dict[str, PublishedSet] = {
    "mmsearch": PublishedSet(
        ("end2end",),
        (("{split}*.parquet", "data/{split}*.parquet", "{split}/*.parquet"),),
        _mmsearch_records,
        _mmsearch_row,
        "in the rows",
    ),
    "livevqa": PublishedSet(
        ("test", "train"),
        (("*{split}*.json", "*{split}*.jsonl", "*.json", "*.jsonl"),),
        _livevqa_records,
        _livevqa_row,
        "`img_path` relative to the folder",
    ),
}
