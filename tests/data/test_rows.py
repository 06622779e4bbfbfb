"""The checks of a row, field by field."""

import dataclasses

import pytest

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.core.protocol import Answer, render_turn
from mmsearch_jax.data.rows import (
    SCHEMA_VERSION,
    ConversationTurn,
    Placement,
    embed_images,
    from_record,
    to_record,
    validate,
)
from tests.data.rows import bare_row, conversation, full_row, jpeg

ANSWER = ConversationTurn(render_turn("I know.", Answer("Lima")))


def test_sound_rows_have_no_problems_and_come_back_from_their_records():
    for row in (full_row(), bare_row()):
        assert validate(row) == []
        assert from_record(to_record(row)) == row


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": ""}, "id: must be a non-empty string"),
        ({"image": None}, "image: must be a path, a URL or bytes, not a NoneType"),
        ({"question": " "}, "question: must be a non-empty string"),
        ({"answers": ()}, "answers: must list at least one"),
        ({"answers": ("Lima", "")}, "answers: must contain only non-empty strings"),
        ({"kind": "odd"}, "kind: unknown kind 'odd', expected one of visual"),
        ({"search_required": "yes"}, "search_required: must be true, false or null"),
        ({"target": 2}, "target: 2 is not an index into 2 placements"),
        ({"placements": (Placement("flag", (10, 0, 5, 8)),), "target": None}, "placements[0].box: must be x0 < x1"),
        ({"meta": {"form": 3}}, "meta: must map strings to strings"),
        ({"provenance": {"row": 3}}, "provenance: must map strings to strings"),
        ({"category": 3}, "category: must be a string"),
        ({"more_images": ("",)}, "more_images: must list"),
        ({"image": ""}, "more_images: there are more images, but the first is missing"),
        ({"turns": conversation()[:1]}, "turns[0].text: the last turn must answer"),
        ({"turns": (ANSWER, ANSWER)}, "turns[0].text: only the last turn may answer"),
        ({"turns": (*conversation()[:1] * 2, ConversationTurn("Lima"))}, "turns[2].text: not a turn of the grammar"),
        (
            {"turns": (dataclasses.replace(conversation()[0], observation=None), ANSWER)},
            "turns[0].observation: is missing after a search",
        ),
        ({"turns": (dataclasses.replace(ANSWER, box=(3, 3, 3, 9)),)}, "turns[0].box: must be x0 < x1"),
    ],
)
def test_each_fault_is_named_by_its_field(change, problem):
    row = dataclasses.replace(full_row(), **change)
    assert any(found.startswith(problem) for found in validate(row)), validate(row)
    with pytest.raises(DataError, match=problem.split(":")[0].replace("[", r"\[")):
        from_record(to_record(row))


def test_every_fault_is_reported_not_the_first_alone():
    assert len(validate(dataclasses.replace(full_row(), id="", kind="odd", target=9))) == 3


def test_rows_of_the_first_version_are_read_and_of_a_later_one_refused():
    record = {"id": 7, "image": "a.jpg", "question": "q?", "answers": ["x"], "kind": "crop", "search_required": True}
    assert from_record(record).id == "7"
    with pytest.raises(DataError, match=f"schema: version {SCHEMA_VERSION + 1}"):
        from_record(record | {"schema": SCHEMA_VERSION + 1})
    with pytest.raises(DataError, match="the row must be an object, not a list"):
        from_record([])


def test_images_are_embedded_from_where_they_are(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(3))
    row = embed_images(dataclasses.replace(full_row(), image=str(tmp_path / "a.jpg"), more_images=(jpeg(4),)))
    assert row.images == (jpeg(3), jpeg(4))
    with pytest.raises(ImageError, match=r"none\.jpg"):
        embed_images(full_row(image=str(tmp_path / "none.jpg")))


def test_kind_and_search_required_may_be_missing_or_null():
    record = {"id": "1", "image": "", "question": "q?", "answers": ["a"]}
    for more in ({}, {"kind": None, "search_required": None}, {"kind": ""}):
        row = from_record(record | more)
        assert (row.kind, row.search_required) == ("", None)
    for field, value in (("search_required", 1), ("search_required", "yes"), ("id", True), ("target", True)):
        assert [problem.split(":")[0] for problem in validate(record | {field: value})] == [field]


def test_the_error_of_a_record_names_everything_at_once():
    with pytest.raises(DataError) as raised:
        from_record({"id": "", "kind": "odd", "search_required": 3, "question": "q?"})
    said = str(raised.value)
    assert "the row has no 'image', 'answers'" in said
    assert all(f"{field}: " in said for field in ("id", "kind", "search_required")) and "\n" not in said
