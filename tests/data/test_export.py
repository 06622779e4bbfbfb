"""Our rows in other projects' layouts: a round trip keeps all fields of the layout, or the row is not written."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import PROMPT_STYLES, Answer, ImageSearch, TextSearch, first_turn_prompt, render_turn
from mmsearch_jax.data.convert.conversion import convert
from mmsearch_jax.data.convert.export import FORMS, export
from mmsearch_jax.data.rows import ConversationTurn
from mmsearch_jax.data.storage import read_rows, write_rows
from tests.data.rows import bare_row, conversation, full_row, jpeg
from tests.data.test_convert import fvqa, refused, search_r1, sharegpt, write_parquet

PARQUET = sorted(set(FORMS) - {"sharegpt"})


def exported(form, rows, folder, **settings):
    """The exported file of these rows, and the rejected rows."""
    write_rows(rows, folder / "rows.array_record")
    out = folder / "out" / ("set.json" if form == "sharegpt" else "set.parquet")
    export(form, folder / "rows.array_record", out, show_progress=False, **settings)
    return out, refused(out.parent)


def come_back(form, rows, folder, **settings):
    """The rows after an export and a conversion; checks that none is lost."""
    out, reasons = exported(form, rows, folder, **settings)
    assert not reasons
    convert(form, out, folder / "back.array_record", show_progress=False)
    return read_rows(folder / "back.array_record")


def asked(name="r0", **changes):
    """A row with all fields of verl's layouts."""
    row = full_row(name, jpeg(2))
    return dataclasses.replace(
        row,
        more_images=(jpeg(1),),
        kind="",
        placements=(),
        target=None,
        meta={},
        turns=(),
        question=row.question.strip(),
        provenance={},
        **changes,
    )


def without_origin(rows):
    return [dataclasses.replace(row, provenance={}) for row in rows]


@pytest.mark.parametrize("required", [True, False, None])
@pytest.mark.parametrize("form", ["verl", "mmsearch-r1"])
def test_questions_come_back_equal_from_verl_s_layouts(form, required, tmp_path):
    rows = [asked(f"r{i}", search_required=required, category=word) for i, word in enumerate(("places", "", "flags"))]
    assert without_origin(come_back(form, rows, tmp_path)) == rows


def test_text_questions_come_back_equal_from_search_r1_s_layout(tmp_path):
    rows = [dataclasses.replace(bare_row(f"q{i}"), answers=("He", "Him"), search_required=i == 0) for i in range(2)]
    assert without_origin(come_back("search-r1", rows, tmp_path)) == rows


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_conversations_come_back_equal_from_sharegpt_s_layout(style, tmp_path):
    looked = (
        ConversationTurn(render_turn("What is it?", ImageSearch(None)), "<information>[1] Peru</information>"),
        *conversation(),
    )
    rows = [
        asked("r0"),
        dataclasses.replace(asked("r1"), turns=looked, search_required=None),
        dataclasses.replace(asked("r2"), turns=conversation()[1:], search_required=False),
        bare_row("r3"),
    ]
    boxless = [
        dataclasses.replace(row, turns=tuple(dataclasses.replace(turn, box=None) for turn in row.turns)) for row in rows
    ]
    assert without_origin(come_back("sharegpt", rows, tmp_path, prompt_style=style)) == boxless


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_came_from_another_project_goes_back_and_returns_unchanged(form, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    path = tmp_path / ("talk.json" if form == "sharegpt" else "a.parquet")
    if form == "sharegpt":
        path.write_text(json.dumps([sharegpt(), sharegpt(conversation()[1:], id="s2")]))
    elif form == "search-r1":
        search_r1(path)
    else:
        write_parquet([fvqa("a", category="search_free"), fvqa("bc", category="flags")], path)
    convert(form, path, tmp_path / "first.array_record", show_progress=False)
    rows = read_rows(tmp_path / "first.array_record")
    assert come_back(form, rows, tmp_path) == rows


def test_a_form_holds_what_it_says_and_the_rest_is_lost(tmp_path):
    row = dataclasses.replace(full_row(), more_images=())
    for form in ("sharegpt", "verl", "mmsearch-r1"):
        (back,) = come_back(form, [row], tmp_path / form)
        for field in ("id", "image", "answers", "category", "search_required"):
            assert getattr(back, field) == getattr(row, field), (form, field)
        assert (back.question, back.kind, back.placements, back.target, back.meta) == (
            row.question.strip(),
            "",
            (),
            None,
            {},
        )
        assert len(back.turns) == (2 if form == "sharegpt" else 0) and all(turn.box is None for turn in back.turns)


def test_verl_finds_its_columns_and_one_image_mark_for_each_image(tmp_path):
    out, _ = exported("verl", [asked()], tmp_path)
    (record,) = pq.read_table(out).to_pylist()
    assert record["prompt"] == [{"role": "user", "content": "<image><image>" + asked().question}]
    assert record["images"] == [{"bytes": jpeg(2), "path": None}, {"bytes": jpeg(1), "path": None}]
    assert record["reward_model"]["ground_truth"] == "Lima" and record["reward_model"]["style"] == "rule"
    assert record["data_source"] == "mmsearch-jax" and record["extra_info"]["index"] == 1


def test_llama_factory_finds_messages_in_turn_and_its_images_beside_the_file(tmp_path):
    out, _ = exported("sharegpt", [dataclasses.replace(asked(), turns=conversation()), bare_row()], tmp_path)
    first, second = json.loads(out.read_text())
    assert [message["from"] for message in first["conversations"]] == ["human", "gpt", "human", "gpt"]
    opening = first["conversations"][0]["value"]
    assert opening == "<image><image>" + first_turn_prompt(asked().question)
    assert first["images"] == ["set_images/000001-0.jpg", "set_images/000001-1.jpg"]
    assert [(out.parent / name).read_bytes() for name in first["images"]] == [jpeg(2), jpeg(1)]
    assert second["conversations"] == [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "He"}]
    assert second["images"] == []


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_row_that_would_not_come_back_equal_is_set_aside_with_its_reason(form, tmp_path):
    marked = dataclasses.replace(bare_row("mark"), question="What does <image> mean?")
    listed = dataclasses.replace(bare_row("list"), answers=('["a", "b"]',))
    pictured = asked("pictured")
    gone = dataclasses.replace(bare_row("gone"), image="/nowhere/a.jpg")
    torn = dataclasses.replace(bare_row("torn"), image=jpeg()[:300])
    told = dataclasses.replace(
        asked("told"),
        turns=(
            ConversationTurn(render_turn("I look.", TextSearch("x")), "<information>see <image></information>"),
            ConversationTurn(render_turn("So.", Answer("Lima"))),
        ),
    )
    rows = [bare_row("good"), asked("fine"), marked, listed, pictured, gone, torn, told, bare_row("good")]
    _, reasons = exported(form, rows, tmp_path)
    expected = {
        "sharegpt": {3: "contains <image>", 8: "contains <image>"},
        "verl": {3: "contains <image>"},
        "mmsearch-r1": {1: "there is no image", 3: "contains <image>", 4: "there is no image", 9: "there is no image"},
        "search-r1": {2: "only text", 3: "contains <image>", 5: "only text", 8: "only text"},
    }[form] | {6: "no image can be read at /nowhere/a.jpg", 7: "damaged"}
    expected.setdefault(9, "already used by row 1")
    assert reasons.keys() == expected.keys(), reasons
    assert all(text in reasons[row] for row, text in expected.items()), reasons


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions=st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=4))
@pytest.mark.parametrize("form", ["sharegpt", "verl", "search-r1"])
def test_whatever_text_is_asked_and_answered_comes_back_or_is_set_aside(form, questions, tmp_path):
    rows = [
        dataclasses.replace(bare_row(f"r{i}"), question=question, answers=tuple(answers))
        for i, (question, answers) in enumerate(questions)
    ]
    write_rows(rows, tmp_path / "rows.array_record")
    out = tmp_path / ("set.json" if form == "sharegpt" else "set.parquet")
    try:
        export(form, tmp_path / "rows.array_record", out, show_progress=False)
    except DataError as error:
        assert "can be exported" in str(error)
        return
    reasons = refused(tmp_path)
    convert(form, out, tmp_path / "back.array_record", show_progress=False)
    kept = [row for number, row in enumerate(rows, 1) if number not in reasons]
    back = read_rows(tmp_path / "back.array_record")
    assert [row.question for row in back] == [row.question.strip() for row in kept]
    assert [row.answers for row in back] == [tuple(dict.fromkeys(map(str.strip, row.answers))) for row in kept]


def test_mistakes_are_named(tmp_path):
    write_rows([asked()], tmp_path / "rows.array_record")
    for form, name, problem in (
        ("llava", "a.json", "unknown layout 'llava', expected one of sharegpt"),
        ("verl", "a.json", r"a\.json is not a file of verl: its name must end in \.parquet"),
        ("sharegpt", "a.parquet", r"must end in \.json or \.jsonl"),
        ("search-r1", "a.parquet", r"none of 1 rows of .* can be exported: see .*rejected-a.parquet.jsonl"),
    ):
        with pytest.raises(DataError, match=problem):
            export(form, tmp_path / "rows.array_record", tmp_path / name, show_progress=False)
        assert not (tmp_path / name).exists()
    with pytest.raises(DataError, match="no rows at"):
        export("verl", tmp_path / "none.jsonl", tmp_path / "a.parquet", show_progress=False)
    assert not list(tmp_path.glob("*.partial"))
