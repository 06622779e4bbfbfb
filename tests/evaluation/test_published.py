"""MMSearch and LiveVQA in their layouts, with possible defects."""

import io
import json

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert.conversion import Counts
from mmsearch_jax.evaluation.published import read_evaluation_set
from tests.data.published_layouts import put
from tests.data.rows import jpeg
from tests.data.test_convert import write_parquet


def rows_of(source, folder, split):
    refused, counts = io.StringIO(), Counts()
    rows = list(read_evaluation_set(source, folder, split, refused, counts))
    reasons = {each["row"]: each["reason"] for each in map(json.loads, refused.getvalue().splitlines())}
    assert counts.read == len(rows) + counts.rejected.total()
    return rows, reasons


def test_mmsearch_has_aliases_and_questions_without_an_image(tmp_path):
    good = {
        "sample_id": "1",
        "query": "Who won?",
        "query_image": {"bytes": jpeg(), "path": None},
        "gt_answer": "Ada",
        "alternative_gt_answers": ["A. Tahl"],
        "area": "news",
        "subfield": "sports",
        "timestamp": "2024-06",
    }
    write_parquet(
        [
            good,
            good,
            good | {"sample_id": "2", "query_image": None},
            good | {"sample_id": "3", "gt_answer": None, "alternative_gt_answers": None},
            good | {"sample_id": "4", "query": " "},
        ],
        tmp_path / "end2end.parquet",
    )
    rows, reasons = rows_of("mmsearch", tmp_path, "end2end")
    assert [(row.id, bool(row.image)) for row in rows] == [("mmsearch-1", True), ("mmsearch-2", False)]
    assert rows[0].answers == ("Ada", "A. Tahl") and rows[0].category == "sports" and rows[0].image == jpeg()
    assert "occurs twice" in reasons[2] and "no answer" in reasons[4] and "query" in reasons[5]
    with pytest.raises(DataError, match="unknown split 'test', expected one of end2end"):
        rows_of("mmsearch", tmp_path, "test")


def test_livevqa_reads_json_and_json_lines_with_images_beside_them(tmp_path):
    put(tmp_path / "image" / "1.jpg", jpeg())
    record = {
        "id": 1,
        "img_path": "image/1.jpg",
        "question": "What?",
        "Ground_Truth": "A",
        "Ground_Truth_List": ["A", "B"],
        "topic": "art",
        "level": 2,
        "options": ["A", "C"],
    }
    put(tmp_path / "set_test.json", json.dumps([record, 7]).encode())
    (row,), reasons = rows_of("livevqa", tmp_path, "test")
    assert row.image == str(tmp_path / "image" / "1.jpg") and row.answers == ("A", "B")
    assert row.meta == {"level": "2", "choices": '["A", "C"]'} and "must be an object" in reasons[2]
    (tmp_path / "set_test.json").rename(tmp_path / "old")
    put(tmp_path / "lines.jsonl", f"{json.dumps(record)}\n\n{{oops\n".encode())
    (again,), reasons = rows_of("livevqa", tmp_path, "test")
    assert again == row and "not JSON" in reasons[2]
    put(tmp_path / "x_test.json", b"{}")
    with pytest.raises(DataError, match="is not a JSON list"):
        rows_of("livevqa", tmp_path, "test")
