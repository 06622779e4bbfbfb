"""Benchmarks: reads their rows, selects those to ask, and counts the others by reason."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import heapq
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert.conversion import Counts, read
from mmsearch_jax.data.convert.published import find_files
from mmsearch_jax.data.convert.sets import SETS
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import FORMATS, existing_rows
from mmsearch_jax.evaluation.metrics.by_name import metric_named
from mmsearch_jax.evaluation.published import EVALUATION_SETS, read_evaluation_set
from mmsearch_jax.settings.evaluation import BenchmarkConfig

REJECTED_FILE = "rejected.jsonl"


class LoadedRows(NamedTuple):
    """The rows to ask, in the set's order, and the number of skipped rows by reason."""

    rows: list[Row]
    skipped: collections.Counter[str]


def load_rows(benchmark: BenchmarkConfig, root: Path, folder: Path, seed: int) -> LoadedRows:
    """Reads a benchmark from disk.

    With the same seed, a smaller sample is a subset of a larger one. Records that cannot be used are listed in
    `folder`/rejected.jsonl.

    Args:
      root: folder that the benchmark's path is relative to.

    Raises:
      DataError: the set is missing, or cannot be read.
    """
    counts, skipped, refused = Counts(), collections.Counter[str](), io.StringIO()
    score = metric_named(benchmark.metric).score

    def usable() -> Iterator[Row]:
        for row in _records(benchmark, root / benchmark.path, refused, counts):
            if any(row.meta.get(key) != value for key, value in benchmark.only.items()):
                skipped[" or ".join(f"{key} is not {value}" for key, value in benchmark.only.items())] += 1
            elif why := _unusable(row, score):
                skipped[why] += 1
            else:
                yield with_choices(row) if benchmark.choices else row

    if benchmark.sample:
        chosen = heapq.nsmallest(benchmark.sample, enumerate(usable()), key=lambda numbered: _lot(seed, numbered[1].id))
        rows = [row for _, row in sorted(chosen, key=lambda numbered: numbered[0])]
    else:
        rows = list(usable())
    if counts.rejected:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REJECTED_FILE).write_text(refused.getvalue(), encoding="utf-8")
    return LoadedRows(rows, skipped + counts.rejected)


def check_present(benchmark: BenchmarkConfig, root: Path) -> None:
    """Checks that the files of a benchmark exist, without reading them.

    Raises:
      DataError: one is missing; the message names it.
    """
    path = root / benchmark.path
    if path.suffix in FORMATS or benchmark.source == "rows":
        existing_rows(path)
        return
    published = (EVALUATION_SETS if benchmark.source in EVALUATION_SETS else SETS)[benchmark.source]
    for split in filter(None, benchmark.split.split(",")):
        find_files(published, benchmark.source, path, split)


def with_choices(row: Row) -> Row:
    """The row as a multiple-choice question; only the right choice is gold."""
    choices = json.loads(row.meta["choices"])
    listed = "\n".join(f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices))
    return dataclasses.replace(
        row,
        question=f"{row.question}\nAnswer with one of these:\n{listed}",
        answers=(choices[int(row.meta["correct_choice"])],),
    )


def _records(benchmark: BenchmarkConfig, path: Path, refused, counts: Counts) -> Iterator[Row]:
    if path.suffix in FORMATS or benchmark.source == "rows":
        yield from read("rows", path, refused, counts, embed=False)
        return
    for split in filter(None, benchmark.split.split(",")):
        if benchmark.source in EVALUATION_SETS:
            yield from read_evaluation_set(benchmark.source, path, split, refused, counts)
        else:
            yield from read(benchmark.source, path, refused, counts, split=split, embed=False)


def _unusable(row: Row, score: Callable[[Row, str], float]) -> str:
    """The reason why a row cannot be scored; "" if there is none."""
    try:
        score(row, "")
    except DataError as error:
        return str(error).partition(": ")[2]
    return ""


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
