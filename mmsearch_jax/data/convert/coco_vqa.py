"""OK-VQA and A-OKVQA: questions about COCO's images, each with ten answers by ten people.

The gold answer is the most frequent one; `meta["direct_answers"]` keeps all ten for VQA accuracy. Layouts:
okvqa.allenai.org, github.com/allenai/aokvqa. A-OKVQA's test split is published without answers.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.convert.published import Files, PublishedSet, find_image, read_json
from mmsearch_jax.data.rows import Row


def _listed(content: Any, key: str, path: Path) -> list[Any]:
    listed = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(listed, list):
        raise DataError(f"{path} has no list of {key}: is it a file of OK-VQA?")
    return listed


def _okvqa_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    questions, annotations = files[0][0], files[1][0]
    answers = {
        note["question_id"]: note
        for note in _listed(read_json(annotations), "annotations", annotations)
        if isinstance(note, Mapping) and "question_id" in note
    }
    for question in _listed(read_json(questions), "questions", questions):
        if not isinstance(question, Mapping) or question.get("question_id") not in answers:
            yield DataError("question_id: there is no annotation for this question")
        else:
            yield {**answers[question["question_id"]], **question, "split": split}


def _okvqa_row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    listed = record.get("answers")
    if not isinstance(listed, list):
        raise DataError("answers: must list answers")
    given = [note.get("answer") if isinstance(note, Mapping) else note for note in listed]
    image = f"COCO_{record['split']}2014_{_number(record):012d}"
    return _row(record, number, find_image(folder, (f"{record['split']}2014",), image), "ok-vqa", given)


def _aokvqa_records(files: Files, split: str, folder: Path) -> Iterator[Any]:
    content = read_json(files[0][0])
    if not isinstance(content, list):
        raise DataError(f"{files[0][0]} does not contain a list: is it a file of A-OKVQA?")
    yield from content


def _aokvqa_row(record: Mapping[str, Any], number: int, folder: Path) -> Row:
    image = find_image(folder, (f"{record.get('split')}2017",), f"{_number(record):012d}")
    meta = {}
    if isinstance(record.get("choices"), list):
        meta = {"choices": json.dumps(record["choices"]), "correct_choice": str(record.get("correct_choice_idx", ""))}
    return _row(record, number, image, "a-okvqa", record.get("direct_answers"), meta)


def _row(
    record: Mapping[str, Any], number: int, image: str, source: str, given: Any, meta: Mapping[str, str] | None = None
) -> Row:
    ten = fields.strings(given, "answers")
    counted = collections.Counter(answer.strip() for answer in ten if answer.strip())
    return Row(
        f"{source}-{record.get('question_id')}",
        image,
        fields.question(record, "question"),
        fields.answers([answer for answer, _ in counted.most_common()]),
        "",
        None,
        meta={"direct_answers": json.dumps(ten, ensure_ascii=False), **(meta or {})},
        category=str(record.get("question_type") or ""),
        provenance=fields.provenance(source, number, split=record.get("split"), image=record["image_id"]),
    )


def _number(record: Mapping[str, Any]) -> int:
    if not isinstance(record.get("image_id"), int):
        raise DataError(f"image_id: must be a number, not {record.get('image_id')!r}")
    return record["image_id"]


OKVQA = PublishedSet(
    ("train", "val"),
    (("OpenEnded_mscoco_{split}2014_questions.json",), ("mscoco_{split}2014_annotations.json",)),
    _okvqa_records,
    _okvqa_row,
    "COCO's train2014/ and val2014/",
)
AOKVQA = PublishedSet(
    ("train", "val", "test"),
    (("aokvqa_v1p0_{split}.json",),),
    _aokvqa_records,
    _aokvqa_row,
    "COCO's train2017/, val2017/ and test2017/",
)
