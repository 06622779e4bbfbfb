"""Writes small files in the layouts of published sets, with defects that occur in practice."""

import base64
import csv
import dataclasses
import json

from mmsearch_jax.data.storage import write_rows
from tests.data.rows import bare_row, full_row, jpeg
from tests.data.test_convert import fvqa, write_parquet


def put(path, content):
    """Writes a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_jsonl(path, records):
    """Writes JSON lines."""
    put(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def infoseek(folder):
    """Seven records of the validation split, two of them sound; images in two folders."""
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


def encyclopedic_vqa(folder):
    """Four questions of the test split that name five images; two of the images exist."""
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


TEN_ANSWERS = ["surf"] * 3 + ["surfing"] * 6 + ["sea"]


def okvqa(folder):
    """Four questions of the validation split: a sound one, its duplicate, one without answers, one without image."""
    put(folder / "val2014" / "COCO_val2014_000000000042.jpg", jpeg(1))
    questions = [{"image_id": 42, "question": "Which sport?", "question_id": i} for i in (1, 1, 2)]
    questions.append({"image_id": 43, "question": "Which?", "question_id": 3})
    notes = [{"question_id": i, "image_id": 42, "question_type": "five", "answers": [{"answer": a} for a in TEN_ANSWERS]}
             for i in (1, 3)]  # fmt: skip
    put(folder / "OpenEnded_mscoco_val2014_questions.json", json.dumps({"questions": questions}).encode())
    put(folder / "mscoco_val2014_annotations.json", json.dumps({"annotations": notes}).encode())


def a_okvqa(folder):
    """Four questions: answers as a list, none (as in the test split), as Python text (bad), as JSON in a string."""
    put(folder / "val2017" / "000000000042.jpg", jpeg(1))
    record = {"split": "val", "image_id": 42, "question_id": "q1", "question": "Why?", "choices": ["a", "b"],
              "correct_choice_idx": 1, "direct_answers": ["b"] * 9 + ["c"]}  # fmt: skip
    bare = {"split": "val", "image_id": 42, "question_id": "q2", "question": "Why?"}
    spelt = record | {"question_id": "q3", "direct_answers": "['b', 'c']"}
    in_json = record | {"question_id": "q4", "direct_answers": '["b", "c"]'}
    put(folder / "aokvqa_v1p0_val.json", json.dumps([record, bare, spelt, in_json]).encode())


def simplevqa(folder):
    """A sound record, and three whose image is not base64, is missing, or is not an image."""
    record = {"data_id": 1, "image": base64.b64encode(jpeg(1)).decode(), "language": "EN", "question": "Who?",
              "answer": "He", "atomic_question": "Who is it?", "vqa_category": "Person"}  # fmt: skip
    broken = [record | {"data_id": i, "image": image} for i, image in ((2, "%%%"), (3, None), (4, "aGVsbG8="))]
    (folder / "data").mkdir(parents=True)
    write_parquet([record, *broken], folder / "data" / "test-00000-of-00001.parquet")


def dynvqa(folder):
    """An old file and the latest one: a path, a data URL, no image, a dead URL."""
    put(folder / "local.jpg", jpeg(1))
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg(2)).decode()
    common = {"question": "哪一年?", "answer": ["2012", "二〇一二"]}
    write_jsonl(folder / "DynVQA_zh.202406.jsonl", [{**common, "question_id": 0, "image_url": "old.jpg"}])
    images = ["local.jpg", url, None, "http://127.0.0.1:9/dead.jpg"]
    records = [{**common, "question_id": i, "image_url": image} for i, image in enumerate(images)]
    write_jsonl(folder / "DynVQA_zh.202412.jsonl", records)


def fvqa_set(folder):
    """Rows: search required, free and unknown; images as bytes, path and URL; no image; a repeated id."""
    put(folder / "pictures" / "a.jpg", jpeg(7))
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg(2)).decode()
    rows = [
        fvqa("a", category="search_required"), fvqa("b", category="search_free"), fvqa("c", category=None),
        fvqa("d", images=None), fvqa("a"), fvqa("e", images=[{"bytes": None, "path": "pictures/a.jpg"}]),
        fvqa("f", images=[{"bytes": None, "path": url}]),
    ]  # fmt: skip
    write_parquet(rows, folder / "fvqa_train.parquet")


def deepmmsearchvqa(folder):
    """A conversation, and a row without one."""
    write_rows([dataclasses.replace(full_row("r0", jpeg(3)), more_images=()), bare_row()], folder / "train.tar")


LAYOUTS = {
    "infoseek": (infoseek, "val", 2, 5), "encyclopedic-vqa": (encyclopedic_vqa, "test", 2, 3),
    "okvqa": (okvqa, "val", 1, 3), "a-okvqa": (a_okvqa, "val", 2, 2), "simplevqa": (simplevqa, "test", 1, 3),
    "dynvqa": (dynvqa, "zh", 2, 2), "fvqa": (fvqa_set, "train", 5, 2), "deepmmsearchvqa": (deepmmsearchvqa, "train", 1, 1),
}  # fmt: skip
"""The set's name -> its writer, its split, and the numbers of sound and of defective records."""


def layout(name, folder):
    """Writes a set; returns its split and its numbers of sound and of defective records."""
    folder.mkdir(parents=True, exist_ok=True)
    write, *expected = LAYOUTS[name]
    write(folder)
    return expected
