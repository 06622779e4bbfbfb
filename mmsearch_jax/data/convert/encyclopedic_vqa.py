"""Encyclopedic-VQA: CSV with up to five images per question, from iNaturalist 2021 and Google Landmarks v2.

A row is one question with one image, as in the set's own evaluation. In `answer`, "|" separates annotators' answers and "&&"
the members of a list. Layout: google-research/encyclopedic_vqa.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.convert.published import Files, PublishedSet, find_image, read_json
from mmsearch_jax.data.formats import spreadsheet
from mmsearch_jax.data.rows import Row

_FIELDS = ("question", "answer", "dataset_name", "dataset_image_ids", "question_type", "wikipedia_url")
_INATURALIST, _LANDMARKS = "inaturalist", "landmarks"


def _records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    """One record for each image of each line."""
    for line, record in enumerate(spreadsheet.read_table(files[0][0], _FIELDS), 1):
        if isinstance(record, DataError):
            yield record
            continue
        images = [image.strip() for image in record["dataset_image_ids"].split("|") if image.strip()]
        if not images:
            yield DataError(f"dataset_image_ids: line {record[spreadsheet.LINE]} names no image")
        for place, image in enumerate(images):
            yield {**record, "id": f"encyclopedic-vqa-{split}-{line}-{place}", "image_id": image, "split": split}


def _row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    spellings = [" ".join(part.split()) for part in fields.text(record, "answer").split("|")]
    listed = any("&&" in spelling for spelling in spellings)
    meta = {"question_type": record["question_type"], "wikipedia_url": record["wikipedia_url"]}
    if listed:
        meta["answer_list"] = spellings[0]
    gold = [", ".join(part.strip() for part in spelling.split("&&")) for spelling in spellings]
    return Row(
        record["id"],
        _image(folder, record["dataset_name"], record["image_id"]),
        fields.question(record, "question"),
        fields.answers(gold),
        "two_hop" if record["question_type"] == "2_hop" else "",
        None,
        meta={key: value for key, value in meta.items() if value},
        provenance=fields.provenance(
            "encyclopedic-vqa", number, split=record["split"], dataset=record["dataset_name"], image=record["image_id"]
        ),
    )


def _image(folder: Path, dataset: str, name: str) -> str:
    if dataset == _INATURALIST:
        if known := _inaturalist_names(folder).get(name):
            return str(folder / _INATURALIST / known)
        return find_image(folder, (_INATURALIST,), name)
    if dataset != _LANDMARKS:
        raise DataError(f"dataset_name: '{dataset}' is neither {_INATURALIST} nor {_LANDMARKS}")
    if len(name) < 3:
        raise ImageError(f"image: '{name}' is not an id of Google Landmarks")
    nested = "/".join(name[:3])
    return find_image(folder, tuple(f"{_LANDMARKS}/{part}{nested}" for part in ("", "train/", "index/", "test/")), name)


@functools.lru_cache(maxsize=2)
def _inaturalist_names(folder: Path) -> dict[str, str]:
    """Maps image ids to file names, by iNaturalist's own annotations."""
    names: dict[str, str] = {}
    for part in ("train", "val"):
        path = folder / _INATURALIST / f"{part}.json"
        if path.is_file():
            content = read_json(path)
            listed = content.get("images") if isinstance(content, Mapping) else None
            for image in listed if isinstance(listed, list) else ():
                if isinstance(image, Mapping) and isinstance(image.get("file_name"), str):
                    names[str(image.get("id"))] = image["file_name"]
    return names


ENCYCLOPEDIC_VQA = PublishedSet(
    ("train", "val", "test"),
    (("{split}.csv",),),
    _records,
    _row,
    "inaturalist/ with its train.json and val.json (or <id>.jpg); landmarks/a/b/c/<id>.jpg, or below landmarks/train/",
)
