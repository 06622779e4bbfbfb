"""The log of samples: which lines count, and incomplete lines after a kill. Also the budget."""

import json
import time

import pytest

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.evaluation.budget import EvaluationBudget
from mmsearch_jax.evaluation.samples import Log, Stamp, open_folder, read_samples


def record(name, correct=True, repeat=0, config="c"):
    return {"benchmark": "b", "id": name, "repeat": repeat, "config": config, "correct": correct, "score": None}


def write(path, *records, tail=""):
    path.write_text("".join(json.dumps(each) + "\n" for each in records) + tail)


def test_of_one_key_the_last_that_did_not_break_counts_whatever_file_it_is_in(tmp_path):
    write(tmp_path / "samples.jsonl", record("a", None), record("b", False), record("b", True), record("c", None))
    write(tmp_path / "samples-1-of-2.jsonl", record("a", True), record("b", None), record("a", False, repeat=1))
    found = {(each["id"], each["repeat"]): each["correct"] for each in read_samples(tmp_path)}
    assert found == {("a", 0): True, ("a", 1): False, ("b", 0): True, ("c", 0): None}


def test_a_torn_last_line_is_passed_over_and_cut_off_before_the_next(tmp_path):
    path = tmp_path / "samples.jsonl"
    # Longer than the blocks in which the line's end is searched.
    write(path, record("a"), tail='{"benchmark": "b", "row": "' + "x" * 200_000)
    assert [each["id"] for each in read_samples(tmp_path)] == ["a"]
    with Log(path) as log:
        log.write(record("b"))
    assert [each["id"] for each in read_samples(tmp_path)] == ["a", "b"]
    write(path, tail="torn from the first")
    with Log(path) as log:
        log.write(record("c"))
    assert [each["id"] for each in read_samples(tmp_path)] == ["c"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "samples.jsonl").write_text(json.dumps(record("a")) + "\n{oops\n" + json.dumps(record("b")) + "\n")
    with pytest.raises(DataError, match=r"samples.jsonl, line 2 is damaged"):
        read_samples(tmp_path)


def test_replacing_removes_what_evaluations_leave_and_nothing_else(tmp_path):
    def stamp(**settings):
        return Stamp(settings, "match", {"checkpoint": "x"}, ["a"], 1)

    folder = open_folder(tmp_path / "run", stamp(a=1))
    for name in ("samples.jsonl", "samples-0-of-2.jsonl", "judgements.jsonl", "summary.json", "notes.txt"):
        (folder / name).write_text("")
    assert open_folder(folder, stamp(a=1)) == folder and (folder / "summary.json").is_file()
    with pytest.raises(ConfigError, match="a = 1, which is now 2"):
        open_folder(folder, stamp(a=2))
    with pytest.raises(ConfigError, match="expected one of refuse, new, replace"):
        open_folder(folder, stamp(a=2), "maybe")
    assert open_folder(folder, stamp(a=2), "replace") == folder
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "run.json"]


def test_a_budget_says_what_is_spent():
    budget = EvaluationBudget(calls=3, dollars=1.0)
    budget.add(2, 0.25)
    assert budget.exhausted() is None
    budget.add(1, 0.0)
    assert budget.exhausted() == "budget.calls (3) is spent"
    assert EvaluationBudget(minutes=1.0, began=time.monotonic() - 61).exhausted() == "budget.minutes (1) is spent"
    assert EvaluationBudget(spent_calls=10**9, spent_dollars=1e9).exhausted() is None
