"""The ledger of rows that are not used: its log, its limit, and a job that starts again."""

import json

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.set_aside import SetAside, SkippedLog, Unused


def ledger(workdir, limit=0.5, process=0):
    return SetAside(
        workdir, "grpo", "r.jsonl", 8, limit, "grpo.max_unusable", {"a": 1, "b": 2, "c": 3}, process=process
    )


def logged(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_are_logged_counted_and_told(tmp_path):
    aside = ledger(tmp_path)
    assert aside.told() == "" and not aside.earlier
    aside.start([Unused(5, "", "not JSON"), Unused(2, "b", "image: it is too narrow")])
    aside.add("c", "image: gone \ud83d")
    aside.add("c", "again")
    assert "b" in aside and "a" not in aside and (len(aside), aside.late) == (3, 1)
    assert logged(aside.path) == [
        {"row": 5, "id": "", "reason": "not JSON"},
        {"row": 2, "id": "b", "reason": "image: it is too narrow"},
        {"row": 3, "id": "c", "reason": "image: gone �"},
    ]
    assert aside.told().startswith(
        "3 of 8 rows of r.jsonl cannot be used: row 5: not JSON; row 2 (b): image: it is too"
    )


def test_another_start_knows_the_rows_of_the_last_one_and_begins_the_log_anew(tmp_path):
    for process, name in ((0, "a"), (1, "b")):
        aside = ledger(tmp_path, process=process)
        aside.start([])
        aside.add(name, "image: damaged")
    again = ledger(tmp_path)
    assert again.earlier == {"a", "b"} and len(again) == 0
    again.start([])
    assert logged(again.path) == []


def test_more_than_the_limit_stops_the_job_with_the_first_reasons(tmp_path):
    aside = ledger(tmp_path, limit=0.25)
    aside.start([Unused(1, "a", "image: missing"), Unused(2, "b", "image: missing")])
    with pytest.raises(
        DataError, match=r"3 of 8 rows of r.jsonl .* row 1 \(a\): image: missing.*grpo.max_unusable = 0.25"
    ):
        aside.add("c", "image: missing")
    with pytest.raises(DataError, match="1 of 8 rows"):
        ledger(tmp_path, limit=0.0).start([Unused(1, "a", "image: missing")])


def test_a_torn_last_line_of_the_log_is_passed_over(tmp_path):
    ledger(tmp_path).start([Unused(1, "a", "image: missing")])
    with ledger(tmp_path).path.open("a") as log:
        log.write('{"row": 2, "id": "b')
    assert ledger(tmp_path).earlier == {"a"}


def test_a_skipped_sample_is_logged_once_over_all_starts(tmp_path):
    for _ in range(2):
        log = SkippedLog(tmp_path, "sft")
        for reason in ("a.array_record, row 1: x", "a.array_record, row 2: y", "a.array_record, row 1: x"):
            log.add(reason)
    assert [line["reason"][-1] for line in logged(log.path)] == ["x", "y"]
