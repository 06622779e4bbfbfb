"""verl's rows, and those of two projects based on it: MMSearch-R1 (FVQA) and Search-R1.

All have `data_source`, `prompt` [{role, content}], `images`, `reward_model` {ground_truth, ...}, `extra_info`. MMSearch-R1 adds
`candidate_answers` (JSON in a string), `image_urls` (often None), `data_id` and `category`; Search-R1 gives the gold answers as
ground_truth {target: [...]} and its question inside an instruction. `*_row` reads a record, `*_record` makes one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields, record_images
from mmsearch_jax.data.formats import parquet
from mmsearch_jax.data.rows import Row

_QUESTION = "Question:"
_TEXTS = ("prompt", "reward_model", "data_id", "id", "data_source", "category", "question", "golden_answers")
# MMSearch-R1's words for whether a search is required, in FVQA.
_SEARCH = {"search_required": True, "search_free": False}
_PROMPT = ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
_EXTRA = ("extra_info", pa.struct([("split", pa.string()), ("index", pa.int64()), ("search_required", pa.bool_())]))
COLUMNS = pa.schema(
    [
        ("data_id", pa.string()),
        ("data_source", pa.string()),
        _PROMPT,
        ("images", pa.list_(parquet.IMAGE)),
        ("reward_model", pa.struct([(k, pa.string()) for k in ("style", "ground_truth", "candidate_answers")])),
        ("category", pa.string()),
        _EXTRA,
    ]
)
"""Columns of verl's and MMSearch-R1's rows, as we write them."""
SEARCH_R1_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("golden_answers", pa.list_(pa.string())),
        ("data_source", pa.string()),
        _PROMPT,
        ("ability", pa.string()),
        (
            "reward_model",
            pa.struct([("style", pa.string()), ("ground_truth", pa.struct([("target", pa.list_(pa.string()))]))]),
        ),
        _EXTRA,
    ]
)
"""Columns of Search-R1's rows."""


def records(path: Path) -> Iterator[Any]:
    """The rows of a Parquet file.

    Raises:
      DataError: the file is missing or damaged.
    """
    return parquet.read_plain(path)


def verl_row(record: Mapping[str, Any], number: int) -> Row:
    """A row of any verl data set.

    Raises:
      DataError: it has no question or no answer, a field is invalid, or image marks and images differ in number.
    """
    return _row(record, number, "verl", *_asked(record))


def mmsearch_r1_row(record: Mapping[str, Any], number: int) -> Row:
    """A row of MMSearch-R1, which must have an image.

    Raises:
      DataError: as in `verl_row`, or there is no image.
    """
    question, images = _asked(record)
    row = _row(record, number, "mmsearch-r1", _after_mark(question), images)
    if not row.image:
        raise DataError("images: there is no image, neither bytes nor in image_urls")
    if row.category in _SEARCH:
        return dataclasses.replace(row, search_required=_SEARCH[row.category], category="")
    return row


def search_r1_row(record: Mapping[str, Any], number: int) -> Row:
    """A row of Search-R1, which has only text; its questions need a search.

    Raises:
      DataError: see `verl_row`.
    """
    plain = record.get("question")
    asked, images = _asked(record)
    question = plain.strip() if isinstance(plain, str) and plain.strip() else _after_mark(asked)
    return _row(record, number, "search-r1", question, images)


def verl_record(row: Row, number: int) -> dict[str, Any]:
    """A row in verl's form; its images must be bytes. Conversation, kind, placements and meta are left out.

    Raises:
      DataError: the question contains an image mark.
    """
    return _record(row, number, row.question)


def mmsearch_r1_record(row: Row, number: int) -> dict[str, Any]:
    """A row in MMSearch-R1's form: the question follows "Question:", and `category` says whether a search is required.

    Raises:
      DataError: see `verl_record`.
    """
    said = next((word for word, required in _SEARCH.items() if required == row.search_required), "")
    return _record(row, number, f"{_QUESTION} {row.question}") | {"category": row.category or said}


def search_r1_record(row: Row, number: int) -> dict[str, Any]:
    """A row in Search-R1's form, without the instruction that precedes "Question:" in its own files.

    Raises:
      DataError: the row has an image.
    """
    if row.images:
        raise DataError("images: Search-R1's rows contain only text")
    made = _record(row, number, f"{_QUESTION} {row.question}")
    return {
        "id": row.id,
        "question": row.question,
        "golden_answers": [*row.answers],
        "ability": "fact-reasoning",
        **{name: made[name] for name in ("data_source", "prompt", "extra_info")},
        "reward_model": {"style": "rule", "ground_truth": {"target": [*row.answers]}},
    }


def _record(row: Row, number: int, prompt: str) -> dict[str, Any]:
    known = row.provenance
    index = known.get("index", "")
    return {
        "data_id": row.id,
        "data_source": known.get("data_source") or known.get("source") or "mmsearch-jax",
        "prompt": [{"role": "user", "content": fields.with_marks(prompt, len(row.images))}],
        "images": [{"bytes": image, "path": None} for image in row.images],
        "reward_model": {
            "style": "rule",
            "ground_truth": row.answers[0],
            "candidate_answers": json.dumps(row.answers, ensure_ascii=False),
        },
        "category": row.category,
        "extra_info": {
            "split": known.get("split"),
            "index": int(index) if index.isdecimal() else number,
            "search_required": row.search_required,
        },
    }


def _row(record: Mapping[str, Any], number: int, source: str, question: str, images: tuple[str | bytes, ...]) -> Row:
    reward, extra = fields.mapping(record, "reward_model"), fields.mapping(record, "extra_info")
    gold = reward.get("ground_truth")
    if isinstance(gold, Mapping):
        gold = gold.get("target")
    split, index = extra.get("split"), extra.get("index")
    parts = (record.get("data_source") or source, split, number if index is None else index)
    name = record.get("data_id") or record.get("id") or "-".join(str(part) for part in parts if part is not None)
    return Row(
        str(name),
        images[0] if images else "",
        question,
        fields.answers(gold, reward.get("candidate_answers")),
        "",
        fields.flag(extra, "search_required"),
        category=str(record.get("category") or ""),
        more_images=images[1:],
        provenance=fields.provenance(source, number, data_source=record.get("data_source"), split=split, index=index),
    )


def _asked(record: Mapping[str, Any]) -> tuple[str, tuple[str | bytes, ...]]:
    """The user's whole message without its image marks, and its images."""
    messages = record.get("prompt")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise DataError("prompt: must list messages of role and content")
    asked = [message for message in messages if message.get("role") == "user"]
    if len(asked) != 1:
        raise DataError(f"prompt: has {len(asked)} user messages, expected one question")
    prompt = record_images.said(asked[0].get("content"), "prompt")
    others = [
        record_images.said(m.get("content"), "prompt") for m in messages if m is not asked[0] and m.get("content")
    ]
    images = record_images.counted(record, prompt, others, _TEXTS)
    question = fields.without_marks(prompt.text)
    if not question:
        raise DataError("prompt: there is an image but no question")
    return question, images


def _after_mark(prompt: str) -> str:
    """The text after "Question:", if the prompt has an instruction with it; else the whole prompt."""
    _, mark, question = prompt.partition(_QUESTION)
    if mark and not question.strip():
        raise DataError(f"prompt: nothing follows {_QUESTION!r}")
    return question.strip() if mark else prompt
