"""Records with any value in any place: each becomes a row that every format holds, or is set aside with its reason."""

import copy
import io
import json
import random

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert.conversion import SOURCES, Counts, checked_row, sift
from mmsearch_jax.data.convert.published import find_files
from mmsearch_jax.data.convert.sets import SETS
from mmsearch_jax.data.rows import to_record, validate
from mmsearch_jax.data.storage import FORMATS, read_rows, scan_rows, write_rows
from mmsearch_jax.evaluation.published import EVALUATION_SETS
from tests.data.published_layouts import layout
from tests.data.rows import full_row, jpeg
from tests.data.test_convert import fvqa, sharegpt
from tests.evaluation.small_sets import write_sets

HALF = "half \ud83d"
JUNK = (
    None, True, 0, -1, 1 << 70, 2.5, float("nan"), "", " ", HALF, "nul \0", "[2, 3]", "{oops", "[" * 3000, "<image>", "a.png",
    b"", b"\xff", jpeg()[:300], [], [None], [[]], ["x", HALF], {}, {"bytes": None}, {"bytes": "x"}, {"path": HALF},
    {HALF: 1}, {1: 2}, "data:image/png;base64,%%%", "é" * 600, [{"type": "image"}], [{"role": "user"}], ["a"] * 3, {"a": "b"},
)  # fmt: skip

IN_PARQUET = ("verl", "mmsearch-r1", "search-r1", "fvqa", "simplevqa", "mmsearch")
OF_THE_READER = ("language", "split")
"""Keys that a set's reader adds itself."""


def is_json(value):
    """Whether a file of JSON can hold a value."""
    try:
        return json.loads(json.dumps(value)) == value or value != value
    except TypeError:
        return False


def mutated(record, lot, junk):
    """A copy with something odd in one or two places. The records of a table hold texts in all columns."""
    if "line" in record:
        texts = [value for value in junk if isinstance(value, str)]
        return record | {lot.choice([key for key in record if key != "line"]): lot.choice(texts)}
    record = copy.deepcopy(record)
    for _ in range(lot.choice((1, 1, 2))):
        place = record
        while True:
            keys = [k for k in place if k not in OF_THE_READER] if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = lot.choice(keys)
            if isinstance(place[key], dict | list) and lot.random() < 0.6:
                place = place[key]
                continue
            if lot.random() < 0.1 and isinstance(place, dict):
                del place[key]
            elif lot.random() < 0.1 and isinstance(place, dict):
                place[lot.choice(("image2", "videos", HALF, "kind"))] = place.pop(key)
            else:
                place[key] = copy.deepcopy(lot.choice(junk))
            break
    return record


def readers(root):
    """Each source: its sound records, its reader, and the folder of its images."""
    (root / "a.jpg").write_bytes(jpeg())
    searched = {
        "id": "q",
        "prompt": [{"role": "user", "content": "Question: Who?"}],
        "reward_model": {"ground_truth": {"target": ["He"]}},
        "extra_info": {"split": "train", "index": 1},
    }
    line = {"id": "1", "image": "a.jpg", "question": "Who?", "answer": "He", "set": "s", "line": "2", "note": "n"}
    single = {
        "verl": [fvqa("a")],
        "mmsearch-r1": [fvqa("a"), fvqa("b", images=None, image_urls=["a.jpg"])],
        "search-r1": [searched],
        "sharegpt": [sharegpt(), {"conversations": sharegpt()["conversations"], "image": "a.jpg"}],
        "csv": [line],
    }
    for name, records in single.items():
        yield name, records, SOURCES[name].to_row, root
    folders = {name: layout(name, root / name)[0] for name in SETS if name != "deepmmsearchvqa"}
    write_sets(root / "evaluation")
    for table, where in ((SETS, root), (EVALUATION_SETS, root / "evaluation")):
        for name, published in table.items():
            if name == "deepmmsearchvqa":
                continue
            folder = where / name
            split = folders.get(name, published.splits[0])
            found = published.records(find_files(published, name, folder, split), split, folder)
            records = [record for record in found if isinstance(record, dict)][:3]
            yield name, records, lambda r, n, p=published, f=folder: p.to_row(r, n, f), folder


def test_whatever_a_record_holds_it_becomes_a_sound_row_or_is_set_aside(tmp_path):
    lot, tried = random.Random(0), 0
    made = []
    for name, sound, to_row, folder in readers(tmp_path):
        counts, refused = Counts(), io.StringIO()

        def usable(record, number, to_row=to_row, folder=folder, name=name):
            row = checked_row(record, number, to_row, folder, embed=True)
            return f"{name}-{number}", row

        junk = [value for value in JUNK if name in IN_PARQUET or is_json(value)]
        records = [*sound, *(mutated(lot.choice(sound), lot, junk) for _ in range(60))]
        rows = list(sift(records, usable, refused, counts))
        reasons = [json.loads(line)["reason"] for line in refused.getvalue().splitlines()]
        assert counts.read == len(records) == len(rows) + len(reasons) == len(rows) + counts.rejected.total(), name
        assert rows and reasons and all(validate(row) == [] for row in rows), name
        tried += counts.read
        made += rows[-20:]
    assert tried > 800
    for ending in FORMATS:
        write_rows(made, tmp_path / f"made{ending}")
        assert read_rows(tmp_path / f"made{ending}") == made, ending


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_a_text_that_no_file_can_hold_is_named_before_anything_is_written(ending, tmp_path):
    record = to_record(full_row())
    for change in ({"question": HALF}, {"answers": ["a", HALF]}, {"meta": {HALF: "x"}}, {"image": HALF}, {"id": HALF}):
        assert any("half a character (U+D83D at " in problem for problem in validate(record | change)), change
    lines = [
        json.dumps({**record, "image": "", "more_images": (), "id": i, "question": q})
        for i, q in (("1", HALF), ("2", "q"))
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    first, second = scan_rows(tmp_path / "in.jsonl")
    assert isinstance(first.row, DataError)
    assert write_rows([second.row], tmp_path / f"out{ending}") == 1
