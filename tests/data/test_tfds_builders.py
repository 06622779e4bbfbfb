"""TFDS builders: built and read without TensorFlow, in their own process."""

import dataclasses
import json
import subprocess
import sys

import pytest

from mmsearch_jax.data.convert.conversion import convert
from mmsearch_jax.data.storage import read_rows, write_rows
from tests.data.published_layouts import LAYOUTS, layout, put
from tests.data.rows import full_row, jpeg
from tests.data.test_convert import fvqa, refused, write_parquet

_READ = """
import json, pickle, sys
import grain
import tensorflow_datasets as tfds
from mmsearch_jax.data import tfds_builders
from mmsearch_jax.core.errors import DataError
name, folder, out, split = sys.argv[1:]
prepared = tfds_builders.prepare(name, folder, out).folder
rows = pickle.loads(pickle.dumps(tfds_builders.TfdsRows(prepared, split)))
direct = tfds.data_source(tfds_builders.BUILDERS[name].name, data_dir=out, split=split) if name == "fvqa" else None
shuffled = [row.id for row in grain.MapDataset.source(rows).shuffle(seed=3)]
try:
    tfds_builders.TfdsRows(prepared, "dev")
    wrong = ""
except DataError as error:
    wrong = str(error)
print("RESULT" + json.dumps({
    "rows": [repr(rows[i]) for i in range(len(rows))], "shuffled": shuffled, "wrong": wrong,
    "tensorflow": sorted(m for m in sys.modules if m.split(".")[0] in ("tensorflow", "torch")),
    "splits": list(tfds.builder_from_directory(str(prepared)).info.splits),
    "direct": len(direct) if direct else None,
}))
"""


def built(name, folder, out, split):
    command = [sys.executable, "-c", _READ, name, str(folder), str(out), split]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("RESULT")[1])


def test_a_row_comes_back_as_it_went_in_without_tensorflow(tmp_path):
    whole = [dataclasses.replace(full_row(f"r{i}", jpeg(i)), more_images=(jpeg(9),)) for i in range(3)]
    write_rows(whole, tmp_path / "set" / "train.parquet")
    write_rows(whole[:1], tmp_path / "set" / "test.jsonl")
    found = built("deepmmsearchvqa", tmp_path / "set", tmp_path / "out", "train")
    assert found["rows"] == [repr(row) for row in whole]
    assert sorted(found["shuffled"]) == ["r0", "r1", "r2"] and found["splits"] == ["train", "test"]
    assert found["tensorflow"] == []
    assert "unknown split 'dev', expected one of train, test" in found["wrong"]


def test_bad_records_are_named_and_the_good_ones_built(tmp_path):
    (tmp_path / "f").mkdir()
    write_parquet(
        [fvqa("a", category="search_free"), fvqa("b", images=None), fvqa("a")], tmp_path / "f" / "fvqa_test.parquet"
    )
    found = built("fvqa", tmp_path / "f", tmp_path / "out", "test")
    assert len(found["rows"]) == 1 and "search_required=False" in found["rows"][0] and found["direct"] == 1
    (tmp_path / "out" / "fvqa-test-rejected.jsonl").rename(tmp_path / "rejected-out.jsonl")
    assert refused(tmp_path).keys() == {2, 3}


_BUILD_ALL = """
import json, pathlib, sys
from mmsearch_jax.data import tfds_builders
found = {}
for name in sorted(tfds_builders.BUILDERS):
    prepared = tfds_builders.prepare(name, pathlib.Path(sys.argv[1]) / name, sys.argv[2])
    (split, counts), = prepared.counts.items()
    rows = tfds_builders.TfdsRows(prepared.folder, split)
    found[name] = [split, counts.written, counts.rejected.total(), [repr(rows[i]) for i in range(len(rows))]]
print("RESULT" + json.dumps(found))
"""


def test_each_builder_gives_the_rows_of_its_set_in_its_true_layout(tmp_path):
    expected = {}
    for name in LAYOUTS:
        split, written, rejected = layout(name, tmp_path / "sets" / name)
        convert(name, tmp_path / "sets" / name, tmp_path / "rows" / f"{name}.jsonl", split=split, show_progress=False)
        rows = read_rows(tmp_path / "rows" / f"{name}.jsonl")
        expected[name] = [split, written, rejected, sorted(map(repr, rows))]
    command = [sys.executable, "-c", _BUILD_ALL, str(tmp_path / "sets"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.split("RESULT")[1])
    # TFDS distributes the rows over its shards in its own order.
    assert {name: [*what, sorted(rows)] for name, (*what, rows) in found.items()} == expected


def test_every_published_set_has_a_builder():
    from mmsearch_jax.core.errors import DataError
    from mmsearch_jax.data import tfds_builders
    from mmsearch_jax.data.convert.sets import SETS

    assert tfds_builders.BUILDERS.keys() == SETS.keys() == LAYOUTS.keys()
    assert len({builder.name for builder in tfds_builders.BUILDERS.values()}) == len(SETS)
    with pytest.raises(DataError, match="not an example of these builders"):
        tfds_builders.row_of_example({"images": []})
    with pytest.raises(DataError, match="no prepared set at"):
        tfds_builders.TfdsRows("/nowhere", "train")


def test_a_folder_without_the_files_is_an_error_before_anything_is_built(tmp_path):
    from mmsearch_jax.core.errors import DataError
    from mmsearch_jax.data import tfds_builders

    put(tmp_path / "a" / "other.txt", b"")
    with pytest.raises(DataError, match=r"has no infoseek_train.jsonl"):
        tfds_builders.prepare("infoseek", tmp_path / "a", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no TFDS builder for 'x'"):
        tfds_builders.prepare("x", tmp_path / "a", tmp_path / "out")


def test_a_split_without_one_usable_row_is_no_set(tmp_path):
    from mmsearch_jax.core.errors import DataError
    from mmsearch_jax.data import tfds_builders

    (tmp_path / "f").mkdir()
    write_parquet([fvqa("a", images=None)], tmp_path / "f" / "fvqa_test.parquet")
    with pytest.raises(DataError, match="none of 1 records of fvqa test is a usable row"):
        tfds_builders.prepare("fvqa", tmp_path / "f", tmp_path / "out")
    assert not list((tmp_path / "out").glob("fvqa/1.0.0"))
