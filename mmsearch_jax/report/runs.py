"""Reads a report's inputs from work directories: evaluations with summaries and samples, and training metrics."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError

_ORDER = {name: i for i, name in enumerate(("direct", "rag", "prompted", "sft", "grpo"))}


@dataclasses.dataclass(frozen=True)
class RunEvaluation:
    """An evaluation of one policy on one benchmark; `label` is unique among the report's evaluations on it."""

    folder: Path
    label: str
    benchmark: str
    summary: dict[str, Any]


def find_evaluations(workdirs: Sequence[Path]) -> list[RunEvaluation]:
    """All `eval/**/summary.json` of the folders, grouped by benchmark; baselines come first.

    Raises:
      DataError: a summary is damaged.
    """
    labels = run_labels(workdirs)
    found = []
    for workdir, run in zip(workdirs, labels, strict=True):
        for path in sorted(workdir.glob("eval/**/summary.json")):
            summary = parsed(path.read_text(encoding="utf-8"), path)
            name = str(summary.get("name", path.parent.name))
            label = f"{run}: {name}" if len(workdirs) > 1 else name
            found.append(RunEvaluation(path.parent, label, str(summary.get("benchmark", "")), summary))
    return sorted(found, key=lambda e: (e.benchmark, _ORDER.get(str(e.summary.get("name")), len(_ORDER)), e.label))


def main_place(evaluations: Sequence[RunEvaluation]) -> int:
    """Index of the evaluation that a benchmark's others are compared with: the last trained policy, else the last."""
    known = [i for i, evaluation in enumerate(evaluations) if evaluation.summary.get("name") in _ORDER]
    return known[-1] if known else len(evaluations) - 1


def run_labels(workdirs: Sequence[Path]) -> list[str]:
    """Short names of the folders: the last part, or the whole path if last parts are equal."""
    names = [workdir.resolve().name for workdir in workdirs]
    return names if len(set(names)) == len(names) else [str(workdir) for workdir in workdirs]


def read_samples(folder: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """All lines of a folder's samples with their keys; the last line of a key counts, an incomplete one is skipped.

    Raises:
      DataError: another line is damaged.
    """
    for path in sorted([*folder.glob("samples.jsonl"), *folder.glob("samples-*-of-*.jsonl")]):
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith("\n"):
                    break
                record = parsed(line, f"{path}, line {number}")
                row_id = record.get("id", record["row"]["id"])
                yield (row_id, record.get("repeat", 0)), record


def parsed(text: str, where: str | Path) -> dict[str, Any]:
    """The JSON in a run's file.

    Raises:
      DataError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); run the evaluation again") from error
