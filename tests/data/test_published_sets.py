"""Each published set in its true layout, with the defects met in the wild: every record becomes a row or a reason."""

import base64
import csv
import json

import pytest

from mmsearch_jax.data.convert.run import convert
from mmsearch_jax.data.convert.sets import SETS
from mmsearch_jax.data.storage import read_rows, write_rows
from mmsearch_jax.errors import DataError
from tests.data.published_layouts import put, write_jsonl
from tests.data.rows import full_row, jpeg
from tests.data.test_convert import fvqa, refused, sharegpt, write_parquet


def converted(source, folder, split, out, embed=True):
    counts = convert(source, folder, out / "rows.array_record", split=split, embed=embed, show_progress=False)
    assert counts.read == counts.written + counts.rejected.total()
    return read_rows(out / "rows.array_record"), refused(out)


def test_infoseek_ranges_types_and_missing_images(tmp_path):
    folder = tmp_path / "infoseek"
    put(folder / "oven_images" / "04" / "oven_04000001.jpg", jpeg(1))
    put(folder / "infoseek_images" / "oven_2.JPEG", jpeg(2))
    base = {"data_id": "v1", "image_id": "oven_04000001", "question": "Where?", "answer": ["Spain"],
            "answer_eval": ["ES", "Spain"], "data_split": "val_unseen_question"}  # fmt: skip
    number = base | {"data_id": "v2", "image_id": "oven_2", "answer": ["1.0"],
                     "answer_eval": [{"wikidata": 1.0, "range": [0.9, 1.1]}]}  # fmt: skip
    bad = [
        base | {"data_id": "v3", "image_id": "oven_9"}, base,
        number | {"data_id": "v4", "answer_eval": {"wikidata": 1.0}},
        {key: value for key, value in base.items() if not key.startswith("answer")} | {"data_id": "v5"}, ["no object"],
    ]  # fmt: skip
    write_jsonl(folder / "infoseek_val.jsonl", [base, number, *bad])
    write_jsonl(folder / "infoseek_val_qtype.jsonl", [{"data_id": "v2", "question_type": "Numerical"}])
    rows, reasons = converted("infoseek", folder, "val", tmp_path / "out")
    assert [(row.id, row.answers, row.image) for row in rows] == [
        ("v1", ("Spain", "ES"), jpeg(1)), ("v2", ("1.0",), jpeg(2)),
    ]  # fmt: skip
    assert rows[1].meta == {"answer_range": "[0.9, 1.1]", "question_type": "Numerical"}
    assert rows[0].provenance["split"] == "val_unseen_question"
    for row, why in {
        3: "no file for 'oven_9'",
        4: "already that of row 1",
        5: "range",
        6: "no answer",
        7: "row",
    }.items():
        assert why in reasons.pop(row)
    assert not reasons


def test_encyclopedic_vqa_has_a_row_for_each_image_and_knows_lists(tmp_path):
    folder = tmp_path / "evqa"
    put(folder / "landmarks" / "train" / "a" / "b" / "c" / "abcdef.jpg", jpeg(1))
    put(folder / "inaturalist" / "val" / "02912_Aves" / "x.jpg", jpeg(2))
    put(folder / "inaturalist" / "val.json", b'{"images": [{"id": 7, "file_name": "val/02912_Aves/x.jpg"}]}')
    lines = [
        {"question": "Who built it?", "answer": "The Mengers|Menger family", "dataset_name": "landmarks",
         "dataset_image_ids": "abcdef|abcmissing", "question_type": "2_hop", "wikipedia_url": "https://w/a"},
        {"question": "What does it eat?", "answer": "ants&&seeds", "dataset_name": "inaturalist",
         "dataset_image_ids": "7", "question_type": "multi_answer", "wikipedia_url": "https://w/b"},
        {"question": "Which?", "answer": "x", "dataset_name": "other", "dataset_image_ids": "7", "question_type": "",
         "wikipedia_url": ""},
        {"question": "None?", "answer": "x", "dataset_name": "landmarks", "dataset_image_ids": "", "question_type": "",
         "wikipedia_url": ""},
    ]  # fmt: skip
    with (folder / "test.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    (first, second), reasons = converted("encyclopedic-vqa", folder, "test", tmp_path / "out")
    assert (first.id, first.answers, first.kind, first.image) == (
        "encyclopedic-vqa-test-1-0", ("The Mengers", "Menger family"), "two_hop", jpeg(1),
    )  # fmt: skip
    assert (second.answers, second.meta["answer_list"], second.image) == (("ants, seeds",), "ants&&seeds", jpeg(2))
    assert reasons.keys() == {2, 4, 5} and "abcmissing" in reasons[2] and "names no image" in reasons[5]
    (folder / "val.csv").write_text("question,answer\nWho?,He\n")
    with pytest.raises(DataError, match="has no column dataset_name, dataset_image_ids"):
        converted("encyclopedic-vqa", folder, "val", tmp_path / "out")


def test_okvqa_keeps_ten_answers_and_puts_the_commonest_first(tmp_path):
    folder = tmp_path / "okvqa"
    put(folder / "val2014" / "COCO_val2014_000000000042.jpg", jpeg(1))
    ten = ["surf"] * 3 + ["surfing"] * 6 + ["sea"]
    questions = [{"image_id": 42, "question": "Which sport?", "question_id": i} for i in (1, 1, 2)]
    questions.append({"image_id": 43, "question": "Which?", "question_id": 3})
    notes = [{"question_id": i, "image_id": 42, "question_type": "five", "answers": [{"answer": a} for a in ten]}
             for i in (1, 3)]  # fmt: skip
    put(folder / "OpenEnded_mscoco_val2014_questions.json", json.dumps({"questions": questions}).encode())
    put(folder / "mscoco_val2014_annotations.json", json.dumps({"annotations": notes}).encode())
    (row,), reasons = converted("okvqa", folder, "val", tmp_path / "out")
    assert (row.id, row.answers, row.category) == ("ok-vqa-1", ("surfing", "surf", "sea"), "five")
    assert json.loads(row.meta["direct_answers"]) == ten
    assert {2: "already", 3: "no annotation", 4: "COCO_val2014_000000000043"}.keys() == reasons.keys()
    put(folder / "mscoco_val2014_annotations.json", b"{}")
    with pytest.raises(DataError, match="has no list of annotations"):
        converted("okvqa", folder, "val", tmp_path / "out")


def test_a_okvqa_with_choices_and_a_test_split_without_answers(tmp_path):
    folder = tmp_path / "a"
    put(folder / "val2017" / "000000000042.jpg", jpeg(1))
    record = {"split": "val", "image_id": 42, "question_id": "q1", "question": "Why?", "choices": ["a", "b"],
              "correct_choice_idx": 1, "direct_answers": ["b"] * 9 + ["c"]}  # fmt: skip
    bare = {"split": "val", "image_id": 42, "question_id": "q2", "question": "Why?"}
    spelt = record | {"question_id": "q3", "direct_answers": "['b', 'c']"}
    in_json = record | {"question_id": "q4", "direct_answers": '["b", "c"]'}
    put(folder / "aokvqa_v1p0_val.json", json.dumps([record, bare, spelt, in_json]).encode())
    (first, last), reasons = converted("a-okvqa", folder, "val", tmp_path / "out")
    assert (first.answers, first.meta["choices"], first.meta["correct_choice"]) == (("b", "c"), '["a", "b"]', "1")
    assert last.answers == ("b", "c") and "no answer" in reasons[2] and "not JSON" in reasons[3]


def test_simplevqa_decodes_its_images_and_rejects_broken_ones(tmp_path):
    record = {"data_id": 1, "image": base64.b64encode(jpeg(1)).decode(), "language": "EN", "question": "Who?",
              "answer": "He", "atomic_question": "Who is it?", "vqa_category": "Person"}  # fmt: skip
    broken = [record | {"data_id": i, "image": image} for i, image in ((2, "%%%"), (3, None), (4, "aGVsbG8="))]
    (tmp_path / "s" / "data").mkdir(parents=True)
    write_parquet([record, *broken], tmp_path / "s" / "data" / "test-00000-of-00001.parquet")
    (row,), reasons = converted("simplevqa", tmp_path / "s", "test", tmp_path / "out")
    assert (row.image, row.category, row.meta["language"]) == (jpeg(1), "Person", "EN")
    assert "not base64" in reasons[2] and "no image" in reasons[3] and "not an image" in reasons[4]


def test_dynvqa_reads_the_latest_file_of_urls_and_paths(tmp_path):
    folder = tmp_path / "dyn"
    put(folder / "local.jpg", jpeg(1))
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg(2)).decode()
    common = {"question": "哪一年?", "answer": ["2012", "二〇一二"]}
    write_jsonl(folder / "DynVQA_zh.202406.jsonl", [{**common, "question_id": 0, "image_url": "old.jpg"}])
    images = ["local.jpg", url, None, "http://127.0.0.1:9/dead.jpg"]
    records = [{**common, "question_id": i, "image_url": image} for i, image in enumerate(images)]
    write_jsonl(folder / "DynVQA_zh.202412.jsonl", records)
    rows, reasons = converted("dynvqa", folder, "zh", tmp_path / "out")
    assert [row.image for row in rows] == [jpeg(1), jpeg(2)] and rows[0].answers == ("2012", "二〇一二")
    assert "no image" in reasons[3] and "cannot be fetched" in reasons[4]


def test_fvqa_knows_where_a_search_is_required(tmp_path):
    (tmp_path / "f").mkdir()
    rows = [fvqa("a", category="search_required"), fvqa("b", category="search_free"), fvqa("c", category=None),
            fvqa("d", images=None), fvqa("a")]  # fmt: skip
    write_parquet(rows, tmp_path / "f" / "fvqa_train.parquet")
    rows, reasons = converted("fvqa", tmp_path / "f", "train", tmp_path / "out")
    assert [(row.search_required, row.category) for row in rows] == [(True, ""), (False, ""), (None, "")]
    assert reasons.keys() == {4, 5}


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
def test_a_wrong_split_or_folder_says_what_is_expected(name, tmp_path):
    with pytest.raises(DataError, match="unknown split 'dev', expected one of"):
        convert(name, tmp_path, tmp_path / "rows.jsonl", split="dev", show_progress=False)
    with pytest.raises(DataError, match="no split given"):
        convert(name, tmp_path, tmp_path / "rows.jsonl", show_progress=False)
    with pytest.raises(DataError, match="put the files of"):
        convert(name, tmp_path, tmp_path / "rows.jsonl", split=SETS[name].splits[0], show_progress=False)
    with pytest.raises(DataError, match="no folder at"):
        convert(name, tmp_path / "x", tmp_path / "rows.jsonl", split=SETS[name].splits[0], show_progress=False)
