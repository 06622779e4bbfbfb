"""Passages from files: the supported layouts, and the errors for others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mmsearch_jax.core.errors import DataError
from tools_server.corpora.passages import read_passages
from tools_server.hits import Page

RECORDS = [
    {"id": "7", "title": "Ostrin", "text": "A port.\u2028It is old.", "url": "https://x.example/ostrin"},
    {"id": 8, "title": "Thé", "text": "A drink."},
]
PAGES = [Page("Ostrin", "https://x.example/ostrin", "A port.\u2028It is old.", "7"), Page("Thé", "", "A drink.", "8")]


def lines(records: list) -> bytes:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


def read(*paths: Path) -> list[Page]:
    return list(read_passages(paths))


def test_json_lines_plain_and_compressed_and_a_folder_of_pages_give_the_same_passages(tmp_path: Path):
    (tmp_path / "pages.jsonl").write_bytes(lines(RECORDS) + b"\n\n")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(RECORDS)))
    assert read(tmp_path / "pages.jsonl") == read(tmp_path / "a.jsonl.gz") == read(tmp_path) == PAGES


def test_search_r1s_contents_are_title_and_text(tmp_path: Path):
    record = {"id": "0", "contents": '"The "Big" Port"\nIt is old.\nIt is large.'}
    (tmp_path / "wiki-18.jsonl").write_bytes(lines([record]))
    assert read(tmp_path / "wiki-18.jsonl") == [Page('The "Big" Port', "", "It is old.\nIt is large.", "0")]


def test_parquet_is_read_with_the_columns_that_are_passages(tmp_path: Path):
    table = pyarrow.table(
        {
            "title": ["Ostrin", "Thé"],
            "text": [PAGES[0].text, "A drink."],
            "id": ["7", "8"],
            "url": ["https://x.example/ostrin", None],
            "embedding": [[1.0], [2.0]],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    assert read(tmp_path / "a.parquet") == PAGES


def test_files_follow_one_another_and_passages_without_text_are_left_out(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(lines([{"title": "A", "text": " \n"}, {"title": "B", "text": "b"}]))
    (tmp_path / "b.jsonl").write_bytes(lines([{"title": "C", "text": "c"}]))
    assert [page.title for page in read(tmp_path / "a.jsonl", tmp_path / "b.jsonl")] == ["B", "C"]


def test_half_of_a_surrogate_pair_is_replaced(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(rb'{"title": "A", "text": "x \ud800 y"}')
    assert read(tmp_path / "a.jsonl")[0].text == "x ? y"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "a.jsonl:2: not JSON"),
        (b'"\xff"', "a.jsonl:2: not JSON"),
        (b"[" * 100_000, "a.jsonl:2: not JSON"),
        (b"[1]", "a.jsonl:2: a passage is an object with title and text, not list"),
        (b'{"title": "A"}', "a.jsonl:2: field 'text' is missing"),
        (b'{"title": 3, "text": "b"}', "a.jsonl:2: field 'title' is int"),
        (b'{"contents": null}', "a.jsonl:2: field 'contents' is NoneType"),
        (b'{"title": "A", "text": "b", "url": ["c"]}', "a.jsonl:2: field 'url' is list"),
    ],
)
def test_a_line_that_is_no_passage_is_named(tmp_path: Path, line: bytes, message: str):
    (tmp_path / "a.jsonl").write_bytes(lines(RECORDS[:1]) + b"\n" + line)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


def test_a_parquet_value_that_is_no_string_is_named_by_its_row(tmp_path: Path):
    pyarrow.parquet.write_table(pyarrow.table({"title": ["A", "B"], "text": ["a", None]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a.parquet:2: field 'text' is NoneType"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", None, "no corpus file at"),
        ("a.csv", b"a,b", "no known format"),
        ("a.parquet", b"PAR1 or not", "not a readable Parquet file"),
        ("a.jsonl.gz", b"plain", "damaged after line 0"),
        ("a.jsonl.gz", gzip.compress(lines(RECORDS * 500))[:-40], r"damaged after line \d+"),
    ],
)
def test_a_missing_foreign_or_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)
