"""Nine published sets in their layouts, a few rows each, with the scripted policy's answers."""

import base64
import csv
import json

from mmsearch_jax.core.protocol import GIVE_UP, Answer, ImageSearch, TextSearch, render_turn
from tests.data.published_layouts import put, write_jsonl
from tests.data.rows import jpeg
from tests.data.test_convert import fvqa, write_parquet

SEARCHES = [
    render_turn("Whose?", ImageSearch(None)), render_turn("Capital?", TextSearch("masons 1889")),
    render_turn("Again.", TextSearch("Velmora capital")), render_turn("There.", Answer("Ostrin")),
]  # fmt: skip
SCRIPTS = {
    # MMSearch, without an image: 1.
    "Without a picture?": "Harland",
    # InfoSeek: unseen question 1 and 1, unseen entity 0 and 1.
    "Capital of its land?": SEARCHES, "How long is it in metres?": "1.05 m", "Who founded it?": "Nobody",
    "When was it built?": "1889",
    # Encyclopedic-VQA: 1, 1 (2 of 3 listed), 0.
    "Who built the house?": "the Menger family", "What does the bird eat?": "seeds and ants and worms",
    "Which river is near?": "Tahl",
    # SimpleVQA: right, wrong, not attempted.
    "Who is painted?": "Ada", "Which year is shown?": "1900", "What is hidden?": GIVE_UP,
    # Dyn-VQA: 1, 0, 3/4.
    "Which model is this?": "It is a Porsche 944", "When does it end?": "2011", "这是什么车?": "保时捷",
    # OK-VQA: 1, 0.9. A-OKVQA: direct 1 and 0, choices 0 and 1.
    "Which sport?": "surfing", "What sport is it?": "surf",
    "Why does he wait?\nAnswer": "The bus.", "Why does she run?\nAnswer": "B",
    "Why does he wait?": "rain", "Why does she run?": "nobody knows",
    # FVQA, MMSearch, LiveVQA: 1; 2/3 (1 of 2 words common both ways, P 1/2 R 1); 1.
    "Which flag is it?": "Republic of Peru", "Who won the cup?": "team Harland", "What happened here?": "a storm",
    # The second of LiveVQA has no image: it is asked all the same.
    "Nothing to see?": "nothing",
}  # fmt: skip
SCORES = {
    "infoseek": 2 / 3, "encyclopedic_vqa": 2 / 3, "simplevqa": 0.4, "dynvqa": 1.75 / 3, "okvqa": 0.95, "a_okvqa": 0.5,
    "a_okvqa_choices": 0.5, "fvqa": 1.0, "mmsearch": 5 / 6, "livevqa": 0.5,
}  # fmt: skip
"""The benchmarks' own figures, computed by hand."""


def write_sets(root):
    """Writes all sets."""
    for writer in (_infoseek, _encyclopedic_vqa, _short_answers, _coco, _searches):
        writer(root)
    return root


def _infoseek(root):
    put(root / "infoseek" / "oven_images" / "oven_1.jpg", jpeg(1))
    records = [
        ("v1", "Capital of its land?", ["Ostrin"], "unseen_question", "String"),
        ("v2", "How long is it in metres?", [{"wikidata": 1.0, "range": [0.9, 1.1]}], "unseen_question", "Numerical"),
        ("v3", "Who founded it?", ["Ada", "A. Tahl"], "unseen_entity", "String"),
        ("v4", "When was it built?", ["1888", "1889", "1890"], "unseen_entity", "Time"),
    ]
    write_jsonl(root / "infoseek" / "infoseek_val.jsonl", [
        {"data_id": name, "image_id": "oven_1", "question": question, "answer": ["1.0"] if kind == "Numerical" else answers[:1],
         "answer_eval": answers, "data_split": f"val_{split}"}
        for name, question, answers, split, kind in records
    ])  # fmt: skip
    types = [{"data_id": name, "question_type": kind} for name, _, _, _, kind in records]
    write_jsonl(root / "infoseek" / "infoseek_val_qtype.jsonl", types)


def _encyclopedic_vqa(root):
    folder = root / "encyclopedic-vqa"
    put(folder / "landmarks" / "a" / "b" / "c" / "abcdef.jpg", jpeg(2))
    lines = [
        ("Who built the house?", "The Mengers|Menger family", "automatic"),
        ("What does the bird eat?", "ants&&seeds", "multi_answer"), ("Which river is near?", "Rhine", "2_hop"),
    ]  # fmt: skip
    with (folder / "test.csv").open("w", newline="") as file:
        columns = ["question", "answer", "dataset_name", "dataset_image_ids", "question_type", "wikipedia_url"]
        writer = csv.writer(file)
        writer.writerows([columns, *((q, a, "landmarks", "abcdef", kind, "https://w/a") for q, a, kind in lines)])


def _short_answers(root):
    simple = [("Who is painted?", "Ada", "EN"), ("Which year is shown?", "1901", "EN"), ("What is hidden?", "a key", "EN"),
              ("谁?", "她", "CN")]  # fmt: skip
    (root / "simplevqa" / "data").mkdir(parents=True)
    write_parquet(
        [{"data_id": i, "image": base64.b64encode(jpeg(3 + i)).decode(), "language": language, "question": question,
          "answer": answer, "atomic_fact": "Ada", "vqa_category": "Art"}
         for i, (question, answer, language) in enumerate(simple)],
        root / "simplevqa" / "data" / "test-00000-of-00001.parquet",
    )  # fmt: skip
    put(root / "dynvqa" / "a.jpg", jpeg(9))
    for language, questions in {
        "en": [("Which model is this?", ["Porsche 944."]), ("When does it end?", ["2012"])],
        "zh": [("这是什么车?", ["保时捷 944"])],
    }.items():
        write_jsonl(root / "dynvqa" / f"DynVQA_{language}.202412.jsonl", [
            {"image_url": "a.jpg", "question": question, "question_id": i, "answer": answers}
            for i, (question, answers) in enumerate(questions)
        ])  # fmt: skip


def _coco(root):
    folder, ten = root / "okvqa", ["surf"] * 3 + ["surfing"] * 6 + ["sea"]
    put(folder / "val2014" / "COCO_val2014_000000000042.jpg", jpeg(5))
    asked = [
        {"image_id": 42, "question": q, "question_id": i} for i, q in enumerate(("Which sport?", "What sport is it?"))
    ]
    notes = [{"question_id": i, "image_id": 42, "answers": [{"answer": a} for a in ten]} for i in range(2)]
    put(folder / "OpenEnded_mscoco_val2014_questions.json", json.dumps({"questions": asked}).encode())
    put(folder / "mscoco_val2014_annotations.json", json.dumps({"annotations": notes}).encode())
    folder = root / "a-okvqa"
    put(folder / "val2017" / "000000000042.jpg", jpeg(6))
    put(folder / "aokvqa_v1p0_val.json", json.dumps([
        {"split": "val", "image_id": 42, "question_id": f"q{i}", "question": question, "choices": ["the bus", "rain"],
         "correct_choice_idx": 1, "direct_answers": ["rain"] * 9 + ["bus"]}
        for i, question in enumerate(("Why does he wait?", "Why does she run?"))
    ]).encode())  # fmt: skip


def _searches(root):
    for name in ("fvqa", "mmsearch"):
        (root / name).mkdir()
    write_parquet([fvqa("f1", category="search_required")], root / "fvqa" / "fvqa_test.parquet")
    common = {
        "gt_answer": "Harland",
        "alternative_gt_answers": ["The Harlanders"],
        "area": "news",
        "subfield": "sports",
    }
    write_parquet([
        {"sample_id": "news_1", "query": "Who won the cup?", "query_image": {"bytes": jpeg(7), "path": None}, **common},
        {"sample_id": "news_2", "query": "Without a picture?", "query_image": None, **common},
    ], root / "mmsearch" / "end2end.parquet")  # fmt: skip
    put(root / "livevqa" / "image" / "1.jpg", jpeg(8))
    put(root / "livevqa" / "qa_detailed_test.json", json.dumps([
        {"id": 1, "img_path": "image/1.jpg", "question": "What happened here?", "Ground_Truth": "Storm",
         "Ground_Truth_List": ["Storm", "a hurricane"], "topic": "weather", "level": 1, "options": []},
        {"id": 2, "img_path": "", "question": "Nothing to see?", "Ground_Truth": "x", "topic": "", "level": 1},
    ]).encode())  # fmt: skip
