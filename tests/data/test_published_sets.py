"""Each published set in its layout, with defects that occur in practice: every record becomes a row or a reason."""

import json
from pathlib import Path

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert.conversion import convert
from mmsearch_jax.data.convert.sets import SETS
from mmsearch_jax.data.storage import FORMATS, read_rows, write_rows
from tests.data.published_layouts import LAYOUTS, TEN_ANSWERS, layout, put
from tests.data.rows import full_row, jpeg
from tests.data.test_convert import refused, sharegpt


def converted(source, folder, split, out, embed=True):
    counts = convert(source, folder, out / "rows.array_record", split=split, embed=embed, show_progress=False)
    assert counts.read == counts.written + counts.rejected.total()
    return read_rows(out / "rows.array_record"), refused(out)


def test_infoseek_ranges_types_and_missing_images(tmp_path):
    folder = tmp_path / "infoseek"
    layout("infoseek", folder)
    rows, reasons = converted("infoseek", folder, "val", tmp_path / "out")
    assert [(row.id, row.answers, row.image) for row in rows] == [
        ("v1", ("Spain", "ES"), jpeg(1)),
        ("v2", ("1.0",), jpeg(2)),
    ]
    assert rows[1].meta == {"answer_range": "[0.9, 1.1]", "question_type": "Numerical"}
    assert rows[0].provenance["split"] == "val_unseen_question"
    for row, why in {
        3: "no file for 'oven_9'",
        4: "already used by row 1",
        5: "range",
        6: "no answer",
        7: "row",
    }.items():
        assert why in reasons.pop(row)
    assert not reasons


def test_encyclopedic_vqa_has_a_row_for_each_image_and_knows_lists(tmp_path):
    folder = tmp_path / "evqa"
    layout("encyclopedic-vqa", folder)
    (first, second), reasons = converted("encyclopedic-vqa", folder, "test", tmp_path / "out")
    assert (first.id, first.answers, first.kind, first.image) == (
        "encyclopedic-vqa-test-1-0",
        ("The Mengers", "Menger family"),
        "two_hop",
        jpeg(1),
    )
    assert (second.answers, second.meta["answer_list"], second.image) == (("ants, seeds",), "ants&&seeds", jpeg(2))
    assert reasons.keys() == {2, 4, 5} and "abcmissing" in reasons[2] and "names no image" in reasons[5]
    (folder / "val.csv").write_text("question,answer\nWho?,He\n")
    with pytest.raises(DataError, match="has no column dataset_name, dataset_image_ids"):
        converted("encyclopedic-vqa", folder, "val", tmp_path / "out")


def test_okvqa_keeps_ten_answers_and_puts_the_commonest_first(tmp_path):
    folder = tmp_path / "okvqa"
    layout("okvqa", folder)
    (row,), reasons = converted("okvqa", folder, "val", tmp_path / "out")
    assert (row.id, row.answers, row.category) == ("ok-vqa-1", ("surfing", "surf", "sea"), "five")
    assert json.loads(row.meta["direct_answers"]) == TEN_ANSWERS
    assert {2: "already", 3: "no annotation", 4: "COCO_val2014_000000000043"}.keys() == reasons.keys()
    put(folder / "mscoco_val2014_annotations.json", b"{}")
    with pytest.raises(DataError, match="has no list of annotations"):
        converted("okvqa", folder, "val", tmp_path / "out")


def test_a_okvqa_with_choices_and_a_test_split_without_answers(tmp_path):
    folder = tmp_path / "a"
    layout("a-okvqa", folder)
    (first, last), reasons = converted("a-okvqa", folder, "val", tmp_path / "out")
    assert (first.answers, first.meta["choices"], first.meta["correct_choice"]) == (("b", "c"), '["a", "b"]', "1")
    assert last.answers == ("b", "c") and "no answer" in reasons[2] and "not JSON" in reasons[3]


def test_simplevqa_decodes_its_images_and_rejects_broken_ones(tmp_path):
    layout("simplevqa", tmp_path / "s")
    (row,), reasons = converted("simplevqa", tmp_path / "s", "test", tmp_path / "out")
    assert (row.image, row.category, row.meta["language"]) == (jpeg(1), "Person", "EN")
    assert "not base64" in reasons[2] and "no image" in reasons[3] and "not an image" in reasons[4]


def test_dynvqa_reads_the_latest_file_of_urls_and_paths(tmp_path):
    folder = tmp_path / "dyn"
    layout("dynvqa", folder)
    rows, reasons = converted("dynvqa", folder, "zh", tmp_path / "out")
    assert [row.image for row in rows] == [jpeg(1), jpeg(2)] and rows[0].answers == ("2012", "二〇一二")
    assert "no image" in reasons[3] and "cannot be fetched" in reasons[4]


def test_fvqa_knows_where_a_search_is_required(tmp_path):
    layout("fvqa", tmp_path / "f")
    rows, reasons = converted("fvqa", tmp_path / "f", "train", tmp_path / "out")
    # The last two keep their subject in `category`, because it is not one of the set's two labels.
    assert [(row.search_required, row.category) for row in rows[:3]] == [(True, ""), (False, ""), (None, "")]
    assert [row.category for row in rows[3:]] == ["flags", "flags"] and reasons.keys() == {4, 5}


def test_fvqa_images_come_as_bytes_paths_and_urls_side_by_side(tmp_path):
    layout("fvqa", tmp_path / "f")
    rows, _ = converted("fvqa", tmp_path / "f", "train", tmp_path / "out")
    assert {row.id: row.image for row in rows[-2:]} == {"e": jpeg(7), "f": jpeg(2)} and rows[0].image == jpeg(1)


def test_deepmmsearchvqa_takes_conversations_only(tmp_path):
    folder = tmp_path / "d"
    write_rows(
        [full_row("r0", jpeg(3)), full_row("r1").__class__("r1", "", "Who?", ("He",), "", None)], folder / "train.tar"
    )
    (row,), reasons = converted("deepmmsearchvqa", folder, "train", tmp_path / "out", embed=False)
    assert row == full_row("r0", jpeg(3)) and "no conversation" in reasons[2]
    put(folder / "a.jpg", jpeg(1))
    put(folder / "test.json", json.dumps([sharegpt(), 7]).encode())
    (row,), _ = converted("deepmmsearchvqa", folder, "test", tmp_path / "out")
    assert row.image == jpeg(1) and len(row.turns) == len(sharegpt()["conversations"]) // 2


@pytest.mark.parametrize("name", sorted(SETS))
def test_what_a_set_becomes_survives_every_format(name, tmp_path):
    split, written, _ = layout(name, tmp_path / "set")
    found = {}
    for ending in FORMATS:
        out = tmp_path / f"there{ending}"
        convert(name, tmp_path / "set", out, split=split, show_progress=False)
        convert("rows", out, tmp_path / f"back{ending}", show_progress=False)
        found[ending] = [read_rows(out), read_rows(tmp_path / f"back{ending}")]
    rows = found[".jsonl"][0]
    assert len(rows) == written and all(both == [rows, rows] for both in found.values())


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_wrong_split_or_folder_says_what_is_expected(name, tmp_path):
    with pytest.raises(DataError, match="unknown split 'dev', expected one of"):
        convert(name, tmp_path, tmp_path / "rows.jsonl", split="dev", show_progress=False)
    with pytest.raises(DataError, match="no split given"):
        convert(name, tmp_path, tmp_path / "rows.jsonl", show_progress=False)
    with pytest.raises(DataError, match="put the files of"):
        convert(name, tmp_path, tmp_path / "rows.jsonl", split=SETS[name].splits[0], show_progress=False)
    with pytest.raises(DataError, match="no folder at"):
        convert(name, tmp_path / "x", tmp_path / "rows.jsonl", split=SETS[name].splits[0], show_progress=False)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_folder_may_be_named_from_here_and_by_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split, sound, defective = layout(name, tmp_path / "sets [v1]" / name)
    folder = Path("sets [v1]") / name
    counts = convert(name, folder, Path("out [1]") / "rows.array_record", split=split, show_progress=False)
    assert (counts.written, counts.rejected.total()) == (sound, defective)
    assert len(read_rows(Path("out [1]") / "rows.array_record")) == sound
