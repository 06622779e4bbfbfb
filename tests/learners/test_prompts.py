"""GRPO's prompts: what is set aside, and that the order does not depend on when."""

import json

import pytest

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.data.usable import EPISODE
from mmsearch_jax.learners.prompts import Prompts, judge_prompts, read_prompts
from tests.data import odd_images


def rows_in(folder, names):
    odd_images.write_all(folder)
    return [Row(f"q{i}", str(folder / name) if name else "", "What?", ("a",), "", None) for i, name in enumerate(names)]


NAMES = ["plain.png", "narrow.png", "cut.jpg", "", "animated.gif", "missing.png", "one_pixel.png", "transparent.png"]


def prompts_of(path, workdir, limit=0.5):
    found = read_prompts(path)
    return Prompts(found.rows, 3, judge_prompts(found, EPISODE, workdir, limit))


@pytest.fixture
def path(tmp_path):
    write_rows(rows_in(tmp_path, NAMES), tmp_path / "r.jsonl")
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write('{"id": "torn\n[1]\n')
    return tmp_path / "r.jsonl"


def refuse_damage(encoded):
    if encoded == odd_images.DAMAGED["cut.jpg"][0]:
        raise ImageError("the image is damaged")


def test_unusable_rows_are_passed_over_whenever_they_are_found(path, tmp_path):
    prompts = prompts_of(path, tmp_path)
    # Rows 9 and 10 are no rows; 2 and 6 are seen by header or path.
    assert sorted(unused["row"] for unused in map(json.loads, prompts.aside.path.open())) == [2, 6, 9, 10]
    first, taken = prompts.take(0, 12, refuse_damage)
    assert {row.id for _, row, _ in first} == {"q0", "q3", "q4", "q6", "q7"} and "q2" in prompts.aside
    assert all((encoded == b"") == (row.id == "q3") for _, row, encoded in first)
    # A new start judges the row of the last one by its pixels, and takes the same prompts.
    again = prompts_of(path, tmp_path)
    assert "q2" in again.aside and again.aside.late == 0
    same, same_taken = again.take(0, 12, refuse_damage)
    assert ([place for place, _, _ in same], same_taken) == ([place for place, _, _ in first], taken)
    rest, _ = again.take(prompts.take(0, 5)[1], 3)
    assert [place for place, _, _ in rest] == [place for place, _, _ in first][5:8]


def test_a_repaired_row_is_used_again(path, tmp_path):
    prompts_of(path, tmp_path).take(0, 12, refuse_damage)
    (tmp_path / "cut.jpg").write_bytes(odd_images.SOUND["plain.png"])
    assert "q2" not in prompts_of(path, tmp_path).aside


def test_a_share_of_unusable_rows_above_the_limit_stops_at_the_start_or_when_it_is_reached(path, tmp_path):
    with pytest.raises(DataError, match=r"4 of 10 rows of .*r.jsonl cannot be used: row 2 \(q1\): image: .*too narrow"):
        prompts_of(path, tmp_path, 0.3)
    prompts = prompts_of(path, tmp_path, 0.4)
    with pytest.raises(DataError, match="5 of 10 rows"):
        prompts.take(0, 12, refuse_damage)


def test_rows_with_one_id_or_no_rows_are_refused(tmp_path):
    made = rows_in(tmp_path, ["plain.png", "narrow.png"])
    write_rows([made[0], made[0]], tmp_path / "twice.jsonl")
    with pytest.raises(DataError, match=r"twice.jsonl: two rows have the id 'q0'"):
        read_prompts(tmp_path / "twice.jsonl")
    with pytest.raises(DataError, match="two rows have the id 'q0'"):
        Prompts([made[0], made[0]], 0)
    (tmp_path / "bad.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match="no prompts that can be read; row 1: "):
        read_prompts(tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match="no prompts to train on"):
        Prompts([], 0)


def test_without_a_ledger_an_image_that_cannot_be_shown_ends_the_run(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        Prompts(rows_in(tmp_path, ["missing.png"]), 0).take(0, 1)
