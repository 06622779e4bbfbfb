"""`mmsearch data` from the command line."""

import dataclasses
import json
import re

import pytest

from mmsearch_jax.commands import main as cli
from mmsearch_jax.data.storage import read_rows, write_rows
from tests.data.rows import bare_row, full_row, jpeg
from tests.data.test_convert import fvqa, write_parquet

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def rows_file(tmp_path):
    rows = [dataclasses.replace(full_row(), question=HOSTILE, more_images=()), bare_row()]
    write_rows(rows, tmp_path / "rows.array_record")
    return tmp_path / "rows.array_record"


def mmsearch(*arguments):
    return cli.main(["data", *map(str, arguments)])


def test_convert_prints_what_became_of_every_record(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    said = [{"from": "human", "value": "<image>Which?"}, {"from": "gpt", "value": "Peru"}]
    records = [{"conversations": said, "images": [name]} for name in ("a.jpg", "none.jpg")]
    (tmp_path / "set.json").write_text(json.dumps(records))
    assert mmsearch("convert", "sharegpt", tmp_path / "set.json", tmp_path / "out" / "rows.parquet") == 0
    printed = capsys.readouterr().out
    assert "2 read, 1 written" in printed and "1 rejected" in printed and "rejected-rows.parquet.jsonl" in printed
    assert read_rows(tmp_path / "out" / "rows.parquet")[0].image == jpeg()


def test_validate_names_what_is_wrong_and_exits_2(rows_file, tmp_path, capsys):
    assert mmsearch("validate", "--images", rows_file) == 0
    assert "2 rows, all valid" in capsys.readouterr().out
    write_rows([full_row(), full_row(), full_row("r3", image=b"no picture")], tmp_path / "rows.jsonl")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"id": "x"}\n')
    assert mmsearch("validate", tmp_path) == 2
    out, err = capsys.readouterr()
    assert "row 2: id: 'r0' is already used by row 1" in out and "row 4: the row has no 'image'" in out
    assert "2 of 4 rows are bad" in err and "row 3" not in out
    assert mmsearch("validate", tmp_path / "none.jsonl") == 2
    write_rows([], tmp_path / "empty.tar")
    assert mmsearch("validate", tmp_path / "empty.tar") == 2
    assert "contains no rows" in capsys.readouterr().err


def test_validate_looks_into_images_when_asked(tmp_path, capsys):
    write_rows([dataclasses.replace(full_row(), image=b"no picture", more_images=())], tmp_path / "rows.jsonl")
    assert mmsearch("validate", tmp_path) == 0
    assert mmsearch("validate", "--images", tmp_path) == 2
    assert "row 1: image: the image is not an image" in capsys.readouterr().out


def test_stats_count_every_row(rows_file, capsys):
    assert mmsearch("stats", rows_file) == 0
    out = capsys.readouterr().out
    assert "2 rows" in out
    assert re.search(r"search required +yes 1, unknown 1", out) and re.search(r"turns +2 1, 0 1", out)


def test_inspect_shows_images_and_runs_nothing_that_a_row_says(rows_file, tmp_path):
    page = tmp_path / "rows.html"
    assert mmsearch("inspect", rows_file, "-o", page) == 0
    text = page.read_text()
    assert text.count("<article") == 2 and "data:image/jpeg;base64," in text and text.count('class="box') == 3
    assert "&lt;script&gt;alert(1)" in text and "<script" not in text and "http" not in text.replace("http-equiv", "")
    assert mmsearch("inspect", rows_file, "--skip", 1, "-o", page) == 0
    assert page.read_text().count("<article") == 1
    assert mmsearch("inspect", rows_file, "--skip", 2, "-o", page) == 2


def test_export_and_convert_lead_there_and_back(tmp_path, capsys):
    rows = [dataclasses.replace(bare_row(f"r{i}"), image=jpeg(i)) for i in range(2)]
    write_rows([*rows, dataclasses.replace(bare_row("r2"), question="<image>?")], tmp_path / "rows.tar")
    for layout, name in (("sharegpt", "set.json"), ("verl", "set.parquet"), ("mmsearch-r1", "mm.parquet")):
        assert mmsearch("export", layout, tmp_path / "rows.tar", tmp_path / "out" / name) == 0
        printed = capsys.readouterr().out
        assert "3 read, 2 written" in printed and "1 rejected" in printed and f"rejected-{name}.jsonl" in printed
        assert mmsearch("convert", layout, tmp_path / "out" / name, tmp_path / "back.jsonl") == 0
        assert [dataclasses.replace(row, provenance={}) for row in read_rows(tmp_path / "back.jsonl")] == rows
    assert mmsearch("export", "odd", tmp_path / "rows.tar", tmp_path / "a.json") == 2
    assert "unknown layout 'odd', expected one of sharegpt" in capsys.readouterr().err


def test_an_unknown_source_or_format_is_one_line(rows_file, tmp_path, capsys):
    assert mmsearch("convert", "odd", rows_file, tmp_path / "a.jsonl") == 2
    assert "unknown source 'odd', expected one of mmsearch-r1" in capsys.readouterr().err
    assert mmsearch("convert", "rows", rows_file, tmp_path / "a.csv") == 2
    assert "must end in .jsonl" in capsys.readouterr().err


def test_a_published_set_becomes_a_file_or_a_tfds_data_set(tmp_path, capsys):
    (tmp_path / "f").mkdir()
    write_parquet([fvqa("a"), fvqa("b", images=None)], tmp_path / "f" / "fvqa_train.parquet")
    assert mmsearch("convert", "fvqa", tmp_path / "f", tmp_path / "out.jsonl", "--split", "train") == 0
    assert len(read_rows(tmp_path / "out.jsonl")) == 1
    assert mmsearch("convert", "fvqa", tmp_path / "f", tmp_path / "tfds", "--tfds") == 0
    assert capsys.readouterr().out.count("2 read, 1 written") == 2
    assert (tmp_path / "tfds" / "fvqa" / "1.0.0" / "dataset_info.json").is_file()
    assert mmsearch("convert", "fvqa", tmp_path / "f", tmp_path / "out.jsonl") == 2
    assert mmsearch("convert", "fvqa", tmp_path / "f", tmp_path / "tfds", "--tfds", "--split", "train") == 2
    assert mmsearch("convert", "rows", tmp_path / "out.jsonl", tmp_path / "b.tar", "--split", "train") == 2
