"""FVQA, and DeepMMSearchVQA from a folder that the user supplies.

FVQA consists of MMSearch-R1's rows, whose `category` says whether a search is required. DeepMMSearchVQA was not published: its
folder contains one file of conversations per split, in any of our formats or as LLaMA-Factory's JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data import storage
from mmsearch_jax.data.convert import sharegpt, verl
from mmsearch_jax.data.convert.published import Files, PublishedSet
from mmsearch_jax.data.rows import Row


def _fvqa_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    for path in files[0]:
        yield from verl.records(path)


def _fvqa_row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    row = verl.mmsearch_r1_row(record, number)
    return dataclasses.replace(row, provenance={**row.provenance, "source": "fvqa"})


def _conversation_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    for path in files[0]:
        if path.suffix == ".json":
            yield from sharegpt.records(path)
        else:
            yield from (row for _, row in storage.scan_rows(path))


def _conversation_row(record: Any, number: int, folder: Path) -> Row:
    row = record if isinstance(record, Row) else sharegpt.sharegpt_row(record, number)
    if not row.turns:
        raise DataError("turns: there is no conversation")
    return row


FVQA = PublishedSet(
    ("train", "test"), (("fvqa_{split}*.parquet", "data/{split}*.parquet"),), _fvqa_records, _fvqa_row, "in the rows"
)
DEEPMMSEARCHVQA = PublishedSet(
    ("train", "validation", "test"),
    (tuple(f"{{split}}*{ending}" for ending in (*storage.FORMATS, ".json")),),
    _conversation_records,
    _conversation_row,
    "in the rows, or paths relative to the folder",
)
