"""Every format returns the rows that were written, and reports where a file is damaged."""

import dataclasses
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.formats import jsonl
from mmsearch_jax.data.formats.array_record import ArrayRecordFile, decode, encode
from mmsearch_jax.data.rows import to_record
from mmsearch_jax.data.storage import FORMATS, read_rows, scan_rows, write_rows
from tests.data.rows import bare_row, full_row, jpeg

ROWS = [full_row(), bare_row(), full_row("r2", image="https://example.org/b.png")]
ENDINGS = sorted(FORMATS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_come_back_equal(ending, tmp_path):
    path = tmp_path / f"rows{ending}"
    assert write_rows(iter(ROWS), path) == 3
    assert read_rows(path) == ROWS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_set_is_read_as_empty(ending, tmp_path):
    write_rows([], tmp_path / f"rows{ending}")
    assert read_rows(tmp_path / f"rows{ending}") == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_with_its_images_may_be_moved(ending, tmp_path):
    folder = tmp_path / "here"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.jpg").write_bytes(jpeg())
    write_rows([full_row(image=str(folder / "images" / "a.jpg"))], folder / f"rows{ending}")
    shutil.move(folder, tmp_path / "there")
    (row,) = read_rows(tmp_path / "there" / f"rows{ending}")
    assert row.image == str(tmp_path / "there" / "images" / "a.jpg")


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ".jsonl"])
def test_a_truncated_file_is_an_error_and_never_an_empty_set(ending, tmp_path):
    path = tmp_path / f"rows{ending}"
    write_rows([full_row(f"r{i}", jpeg(i, 400, 300)) for i in range(8)], path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"rows\.\w+ is (cut short|damaged)"):
        read_rows(path)


def test_a_damaged_record_leaves_the_others_readable(tmp_path):
    path = tmp_path / "rows.array_record"
    rows = [full_row(f"r{i}", jpeg(i, 400, 300)) for i in range(8)]
    write_rows(rows, path)
    content = bytearray(path.read_bytes())
    place = content.index(jpeg(4, 400, 300)[-2000:])
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    found = [scanned.row for scanned in scan_rows(path)]
    assert [isinstance(row, DataError) for row in found] == [i == 4 for i in range(8)]
    with pytest.raises(DataError, match=r"rows\.array_record, row 5: the record cannot be read"):
        read_rows(path)


def test_a_bad_line_is_named_and_the_rest_scanned(tmp_path):
    write_rows(ROWS, tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([lines[0], "", "{oops", lines[1]]))
    assert [isinstance(scanned.row, DataError) for scanned in scan_rows(tmp_path)] == [False, True, False]
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: not JSON"):
        read_rows(tmp_path)


def test_a_tar_sample_without_its_head_or_image_is_named(tmp_path):
    path = tmp_path / "rows.tar"
    write_rows([full_row()], path)
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    assert set(members) == {"000000000.json", "000000000.0.jpg", "000000000.1.jpg"}
    for missing, problem in (("0.jpg", "has no 000000000.0.jpg"), ("json", "has no 000000000.json")):
        with tarfile.open(path, "w") as archive:
            for name, content in members.items():
                if name != f"000000000.{missing}":
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        (scanned,) = scan_rows(path)
        assert problem in str(scanned.row)


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    write_rows(ROWS, tmp_path / "rows.jsonl")

    def failing():
        yield ROWS[0]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_rows(failing(), tmp_path / "rows.jsonl")
    assert read_rows(tmp_path) == ROWS and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_names_of_a_row_s_own_are_no_references_to_its_images(ending, tmp_path):
    own = [{"file": "scan.png"}, {"file": "0.jpg"}, {"bytes": "7"}, {"path": "a"}]
    rows = [dataclasses.replace(full_row(f"r{i}"), meta=each, provenance=each) for i, each in enumerate(own)]
    write_rows(rows, tmp_path / f"rows{ending}")
    assert read_rows(tmp_path / f"rows{ending}") == rows


def test_a_sample_that_is_null_is_an_error(tmp_path):
    with tarfile.open(tmp_path / "rows.tar", "w") as archive:
        info = tarfile.TarInfo("0.json")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"null"))
    (scanned,) = scan_rows(tmp_path / "rows.tar")
    assert "null where a row should be" in str(scanned.row)
    with pytest.raises(DataError, match="null where a row should be"):
        decode(encode(None))


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"rows\.csv has an unknown format"):
        write_rows(ROWS, tmp_path / "rows.csv")


KEYS = st.text(max_size=8).filter(lambda key: key != "bytes")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_record_survives_the_binary_frame(record):
    assert decode(encode(record)) == record


def test_a_frame_that_is_cut_or_foreign_is_refused():
    framed = encode({"image": b"12345"})
    with pytest.raises(DataError, match="the row has"):
        decode(framed[:-1])
    with pytest.raises(DataError, match="not a row in our format"):
        decode(b"something else")


def test_a_missing_array_record_is_named(tmp_path):
    with pytest.raises(DataError, match="no ArrayRecord file at"):
        ArrayRecordFile(tmp_path / "none.array_record")


def test_a_row_may_carry_data_urls_which_become_bytes(tmp_path):
    row = dataclasses.replace(full_row(), image="data:text/plain,abc")
    write_rows([row], tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet")[0].image == b"abc"


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_a_tar_from_a_mac_gives_its_rows(tmp_path):
    write_rows([full_row("r0"), full_row("r1")], tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]
    double = b"\0\x05\x16\7"
    mac = [("./.DS_Store", b"x"), ("__MACOSX/._000000000.json", double), ("__MACOSX/000000000.0.jpg", double)]
    mac += [each for name, content in members for each in ((f"./._{name}", double), (f"./{name}", content))]
    write_tar(tmp_path / "mac.tar", mac)
    assert read_rows(tmp_path / "mac.tar") == read_rows(tmp_path / "a.tar")
    write_tar(
        tmp_path / "loud.tar", [(name.replace("jpg", "JPG").replace("json", "JSON"), each) for name, each in members]
    )
    assert read_rows(tmp_path / "loud.tar") == read_rows(tmp_path / "a.tar")


def test_a_sample_of_a_tar_with_an_image_that_its_row_does_not_name_is_an_error(tmp_path):
    head = json.dumps({"id": "1", "image": "", "question": "q?", "answers": ["a"]}).encode()
    for members, problem in (
        ([("0.json", head), ("0.png", jpeg())], "has 0.png, which 0.json does not name"),
        ([("0.json", head), ("0.json", head)], "has two files with one name"),
    ):
        write_tar(tmp_path / "a.tar", members)
        (scanned,) = scan_rows(tmp_path / "a.tar")
        assert problem in str(scanned.row)


def columns(**changed):
    """Two rows of a Parquet file, the second of which is sound."""
    rows = pa.Table.from_pylist([{"id": name, "image": "", "question": "q?", "answers": ["a"]} for name in "xy"])
    for name, column in changed.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, column) if name in rows.column_names else (
            rows.append_column(name, column)
        )  # fmt: skip
    return rows


BAD_TEXT = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"ok"], pa.binary()).buffers())


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (columns(question=BAD_TEXT), "question: a text is not UTF-8"),
        (columns(answers=pa.ListArray.from_arrays([0, 1, 2], BAD_TEXT)), "answers: a text is not UTF-8"),
        (columns(meta=pa.array([[("a", "1"), ("a", "2")], []], pa.map_(pa.string(), pa.string()))), "meta: the value"),
        (columns(when=pa.array([1 << 62, 0], pa.timestamp("us"))), "when: the value cannot be read"),
    ],
)
def test_a_parquet_value_that_cannot_be_read_sets_its_row_aside(table, problem, tmp_path):
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = scan_rows(tmp_path / "a.parquet")
    assert problem in str(first.row) and second.row.id == "y"


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    pq.write_table(pa.table([pa.array(["a"])] * 2, ["id", "id"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has two columns named id: rename or drop one"):
        read_rows(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": "1", "id": "2"}', "the key 'id' occurs twice in one object"),
        (b'{"id": "caf\xe9"}', "not JSON"),
        (b"[" * 200_000, "nested too deeply|not JSON"),
        (b'{"meta": {"a": "1", "a": "2"}}', "the key 'a' occurs twice"),
        (b'{"id": "1", "kind": "odd"}', "the row has no 'image', 'question', 'answers'; kind: unknown kind 'odd'"),
    ],
)
def test_a_line_that_holds_no_row_names_all_that_is_wrong(line, problem, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(line + b'\n{"id": 2, "image": "", "question": "q?", "answers": ["a"]}\n')
    first, second = scan_rows(tmp_path)
    assert re.search(problem, str(first.row)), str(first.row)
    assert (second.row.id, second.row.kind, second.row.search_required) == ("2", "", None)


def fenced(language):
    """The first block of a language in docs/data.md."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    return re.search(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]


def test_the_row_that_the_docs_show_is_sound(tmp_path):
    (tmp_path / "rows.jsonl").write_text(fenced("json"))
    (row,) = read_rows(tmp_path)
    assert row.answers == ("Velmora", "Republic of Velmora") and row.image.endswith("/pictures/flag.png")


def test_the_docs_reader_of_the_binary_frame_reads_it():
    names = {}
    exec(fenced("python"), names)
    for row in ROWS:
        record = to_record(row)
        assert names["decode"](encode(record)) == decode(encode(record))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_lines_with_a_byte_order_mark_are_read(encoding, tmp_path):
    write_rows([full_row("r0"), full_row("r1")], tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(text, encoding=encoding)
    assert read_rows(tmp_path / "b.jsonl") == read_rows(tmp_path / "a.jsonl")
    half = json.dumps({"id": "2"}) + '\n{"id": "\ud83d"}\n'
    (tmp_path / "b.jsonl").write_text(half, encoding=encoding, errors="surrogatepass")
    assert all(isinstance(row, DataError) for _, row in scan_rows(tmp_path / "b.jsonl"))


def test_json_lines_that_are_cut_inside_a_character_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"id": "1"}'.encode("utf-16")[:-1])
    with pytest.raises(DataError, match="is not utf-16-le"):
        list(scan_rows(tmp_path / "a.jsonl"))


def test_one_line_of_another_encoding_costs_only_itself(tmp_path):
    lines = ['{"id": "1"}'.encode("utf-16"), b'{"id": "2"}', b'{"id": "3"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    first, *others = jsonl.read(tmp_path / "a.jsonl")
    assert isinstance(first, DataError) and others == [{"id": "2"}, {"id": "3"}]


@pytest.mark.parametrize("ends", ["between members", "inside a header"])
def test_a_tar_that_is_cut_is_an_error_and_loses_no_row_in_silence(ends, tmp_path):
    write_rows([full_row("r0"), full_row("r1")], tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        second = next(member for member in archive if member.name.startswith("000000001"))
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: second.offset + (0 if ends == "between members" else 100)])
    with pytest.raises(DataError, match="cut short") as caught:
        list(scan_rows(tmp_path / "a.tar"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_read_and_checked_to_its_end(mode, tmp_path):
    write_rows([full_row("r0"), full_row("r1")], tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive, tarfile.open(tmp_path / "b.tar", mode) as packed:
        for member in archive:
            packed.addfile(member, archive.extractfile(member))
    assert read_rows(tmp_path / "b.tar") == read_rows(tmp_path / "a.tar")


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200])
def test_a_file_that_is_no_tar_is_named_in_one_line(content, tmp_path):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"cut short or not a tar file \([^\n]*\): copy or write it again$"):
        list(scan_rows(tmp_path / "a.tar"))
