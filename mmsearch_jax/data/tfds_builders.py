"""The published sets as TFDS builders: ArrayRecord files with metadata, made and read without TensorFlow.

An image is a string feature with its encoded bytes: `tfds.features.Image` would decode it at each read, and its
`SkipDecoding` needs TensorFlow. `tfds.data_source` returns examples; `row_of_example` converts one to a row, and `TfdsRows`
gives the rows of a whole split to Grain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import conversion as run
from mmsearch_jax.data.convert.published import find_files
from mmsearch_jax.data.convert.sets import SETS
from mmsearch_jax.data.rows import Row, from_record, to_record

_UNKNOWN, _NO_BOX = -1, (0, 0, 0, 0)


def _features() -> tfds.features.FeaturesDict:
    text, box = tfds.features.Text, tfds.features.Tensor(shape=(4,), dtype=np.int32)
    return tfds.features.FeaturesDict(
        {
            "id": text(),
            "images": tfds.features.Sequence(text(doc="encoded bytes")),
            "question": text(),
            "answers": tfds.features.Sequence(text(doc="the gold answer first")),
            "kind": text(),
            "category": text(),
            "search_required": tfds.features.Scalar(np.int8, doc="1, 0, or -1 where unknown"),
            "placements": tfds.features.Sequence({"entity": text(), "box": box}),
            "target": tfds.features.Scalar(np.int32, doc="-1 for none"),
            "turns": tfds.features.Sequence(
                {
                    "text": text(),
                    "observation": text(doc="empty after the answer"),
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.int32, doc="all zero for none"),
                }
            ),
            "meta": text(doc="JSON"),
            "provenance": text(doc="JSON"),
        }
    )


def example_of_row(row: Row) -> dict[str, Any]:
    """The row as a TFDS example; its images must be bytes."""
    record = to_record(row)
    return {
        "id": row.id,
        "images": list(row.images),
        "question": row.question,
        "answers": list(row.answers),
        "kind": row.kind,
        "category": row.category,
        "search_required": _UNKNOWN if row.search_required is None else int(row.search_required),
        "placements": list(record["placements"]),
        "target": _UNKNOWN if row.target is None else row.target,
        "turns": [
            {"text": turn.text, "observation": turn.observation or "", "box": turn.box or _NO_BOX} for turn in row.turns
        ],
        "meta": json.dumps(row.meta, ensure_ascii=False),
        "provenance": json.dumps(row.provenance, ensure_ascii=False),
    }


def row_of_example(example: Mapping[str, Any]) -> Row:
    """The row in an example of one of these builders.

    Raises:
      DataError: the example belongs to another builder, or is damaged.
    """
    try:
        images = [bytes(image) for image in example["images"]]
        turns, placements = example["turns"], example["placements"]
        required, target = int(example["search_required"]), int(example["target"])
        last = len(turns["text"]) - 1
        record = {
            "id": example["id"].decode(),
            "image": images[0] if images else "",
            "more_images": images[1:],
            "question": example["question"].decode(),
            "answers": [answer.decode() for answer in example["answers"]],
            "kind": example["kind"].decode(),
            "category": example["category"].decode(),
            "search_required": None if required == _UNKNOWN else bool(required),
            "placements": [
                {"entity": entity.decode(), "box": [int(edge) for edge in box]}
                for entity, box in zip(placements["entity"], placements["box"], strict=True)
            ],
            "target": None if target == _UNKNOWN else target,
            "turns": [
                {
                    "text": text.decode(),
                    "observation": None if i == last else seen.decode(),
                    "box": [int(edge) for edge in box] if any(box) else None,
                }
                for i, (text, seen, box) in enumerate(
                    zip(turns["text"], turns["observation"], turns["box"], strict=True)
                )
            ],
            "meta": json.loads(example["meta"]),
            "provenance": json.loads(example["provenance"]),
            "schema": 2,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"not an example of these builders ({type(error).__name__}: {error}): prepare the set again"
        ) from error
    return from_record(record)


class PublishedSetBuilder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
):
    """A builder that reads the user's folder (TFDS's manual directory); subclasses name the set."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "See docs/data.md for the files that belong in the folder."
    SET: ClassVar[str]

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.counts: dict[str, run.Counts] = {}
        """Counts of the records of each split that was built."""

    def _info(self) -> tfds.core.DatasetInfo:
        # The order of the source is kept, because readers shuffle.
        return tfds.core.DatasetInfo(builder=self, features=_features(), disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        folder = Path(dl_manager.manual_dir)
        return {split: self._generate_examples(folder, split) for split in splits_in(self.SET, folder)}

    def _generate_examples(self, folder: Path, split: str) -> Iterator[tuple[int, Any]]:
        # Written outside the version's folder, which appears only when it is complete.
        rejected = rejected_file(self.SET, split, self._data_dir_root)
        counts = run.Counts()
        with rejected.open("w", encoding="utf-8", errors="backslashreplace") as refused:
            for number, row in enumerate(run.read(self.SET, folder, refused, counts, split=split)):
                counts.written += 1
                yield number, example_of_row(row)
        if not counts.written:
            raise DataError(f"none of {counts.read} records of {self.SET} {split} is a usable row: see {rejected}")
        self.counts[split] = counts


class DeepMMSearchVQA(PublishedSetBuilder):
    """Conversations with search, in a folder that the user supplies."""

    name, SET = "deepmmsearchvqa", "deepmmsearchvqa"


class FVQA(PublishedSetBuilder):
    """FVQA (MMSearch-R1)."""

    name, SET = "fvqa", "fvqa"


class InfoSeek(PublishedSetBuilder):
    """InfoSeek."""

    name, SET = "infoseek", "infoseek"


class EncyclopedicVQA(PublishedSetBuilder):
    """Encyclopedic-VQA."""

    name, SET = "encyclopedic_vqa", "encyclopedic-vqa"


class SimpleVQA(PublishedSetBuilder):
    """SimpleVQA."""

    name, SET = "simplevqa", "simplevqa"


class DynVQA(PublishedSetBuilder):
    """Dyn-VQA."""

    name, SET = "dynvqa", "dynvqa"


class OKVQA(PublishedSetBuilder):
    """OK-VQA."""

    name, SET = "okvqa", "okvqa"


class AOKVQA(PublishedSetBuilder):
    """A-OKVQA."""

    name, SET = "a_okvqa", "a-okvqa"


BUILDERS: dict[str, type[PublishedSetBuilder]] = {
    builder.SET: builder
    for builder in (DeepMMSearchVQA, FVQA, InfoSeek, EncyclopedicVQA, SimpleVQA, DynVQA, OKVQA, AOKVQA)
}


def rejected_file(name: str, split: str, data_dir: str | Path) -> Path:
    """The file that lists the unusable records of a split."""
    return Path(data_dir) / f"{name}-{split}-rejected.jsonl"


def splits_in(name: str, folder: Path) -> list[str]:
    """The splits of a set whose files are in a folder.

    Raises:
      DataError: there are none; the message says what the first lacks.
    """
    found, why = [], None
    for split in SETS[name].splits:
        try:
            find_files(SETS[name], name, folder, split)
            found.append(split)
        except DataError as error:
            why = why or error
    if not found:
        raise DataError(str(why))
    return found


class Prepared(NamedTuple):
    """Folder of a set's ArrayRecord files, and counts of its records (empty if the set already existed)."""

    folder: Path
    counts: dict[str, run.Counts]


def prepare(name: str, folder: str | Path, data_dir: str | Path) -> Prepared:
    """Builds a set; an existing one stays unchanged.

    Args:
      name: one of `BUILDERS`.
      folder: contains the set's published files.
      data_dir: TFDS's root; `<set>-<split>-rejected.jsonl` is written there.

    Raises:
      DataError: an unknown set, no file of it, or a split without usable rows.
    """
    if name not in BUILDERS:
        raise DataError(f"no TFDS builder for '{name}', expected one of {', '.join(BUILDERS)}")
    folder, data_dir = Path(folder), Path(data_dir)
    splits_in(name, folder)
    data_dir.mkdir(parents=True, exist_ok=True)
    builder = BUILDERS[name](data_dir=str(data_dir), file_format="array_record")
    settings = tfds.download.DownloadConfig(manual_dir=str(folder.resolve()))
    builder.download_and_prepare(download_config=settings)
    return Prepared(Path(builder.data_dir), builder.counts)


class TfdsRows:
    """The rows of a prepared split by index: a source for Grain. It can be pickled.

    Args:
      folder: as in `Prepared`.

    Raises:
      DataError: the folder contains no prepared set, or the set has no such split.
    """

    def __init__(self, folder: str | Path, split: str):
        if not (Path(folder) / "dataset_info.json").is_file():
            raise DataError(f"no prepared set at {folder}: make one with `mmsearch data convert --tfds`")
        builder = tfds.builder_from_directory(str(folder))
        if split not in builder.info.splits:
            raise DataError(f"{folder}: unknown split '{split}', expected one of {', '.join(builder.info.splits)}")
        self._source = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> Row:
        """The row with this index."""
        return row_of_example(self._source[number])
