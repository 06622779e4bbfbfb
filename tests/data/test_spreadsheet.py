"""Tables as programs and spreadsheets save them."""

import csv
import io

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert.conversion import convert
from mmsearch_jax.data.formats.spreadsheet import read_table
from mmsearch_jax.data.storage import read_rows
from tests.data.rows import jpeg
from tests.data.test_convert import refused

ROWS = [
    ["Question", "Answer", "Image"],
    ['Is it a "café"?\nReally, now?', "Yes; it is", "a.jpg"],
    ["", " ", ""],
    ["Two|2?", "2", ""],
]


def table(separator=",", newline="\r\n"):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, lineterminator=newline).writerows(ROWS)
    return out.getvalue()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("head", ["", "sep", "blank"])
def test_every_way_to_save_a_table_gives_the_same_rows(head, encoding, separator, newline, tmp_path):
    first = {"": "", "sep": f"sep={separator}{newline}", "blank": newline}[head]
    (tmp_path / "t.csv").write_bytes((first + table(separator, newline)).encode(encoding))
    rows = list(read_table(tmp_path / "t.csv", ("question", "answer")))
    assert [(row["question"], row["answer"], row["image"]) for row in rows] == [tuple(ROWS[1]), tuple(ROWS[3])]
    assert [int(row["line"]) for row in rows] == [2 + bool(head), 5 + bool(head)]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac_roman", "cp1250"])
def test_a_line_in_another_encoding_is_set_aside_and_the_others_read(encoding, tmp_path):
    text = table().replace("Really, now?", "é" * 3)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    first, second = read_table(tmp_path / "t.csv", ("question",))
    assert "question: line 2 is not UTF-8 after" in str(first) and second["question"] == "Two|2?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04....", "is a workbook: save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0....", "is a workbook"),
        (b"", "has no column question: its first line names none"),
        (b"frage,antwort\nx,y\n", "has no column question: its first line names frage, antwort"),
        (b"question,answer,Question\n", "has two columns named question"),
        (b'question,answer\n"what,b\nx,y\n', "line 2: a quote is opened and never closed"),
        ("question,answer\n".encode("utf-16-le"), "is not text in UTF-8"),
        (b"\xff\xfequestion", "has no column question|is not utf-16"),
    ],
)
def test_a_file_that_is_no_table_is_named_with_the_way_out(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_table(tmp_path / "t.csv", ("question",)))
    with pytest.raises(DataError, match="no CSV file at"):
        list(read_table(tmp_path / "none.csv", ("question",)))


def test_a_bad_line_is_set_aside_with_its_number(tmp_path):
    (tmp_path / "t.csv").write_text('question,answer\na,b,c\n"x"y,z\nfine,yes,,\n')
    first, second, third = read_table(tmp_path / "t.csv", ("question",))
    assert "line 2 has 3 values for 2 columns" in str(first) and "not CSV: line 3" in str(second)
    assert third["question"] == "fine"


def test_own_questions_become_rows(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(jpeg())
    lines = [
        "id;Image;Question;Answer;Answers;Search Required;kind;Note;category",
        'one;pictures\\a.jpg;Which?;"[2, 3]";2 to 3|two to three;TRUE;whole_image;by hand;maths',
        ";pictures/a.jpg;Which?;x;;;;;",
        ";;Who?;;Ada|A. L.;no;;;",
        ";;Who?;;;;;;",
        ";;Who?;x;;perhaps;;;",
        ";gone.jpg;Who?;x;;;;;",
        ";;Who?;x;;;;b.png;",
        ";;;x;;;;;",
        "one;;Who?;x;;;;;",
        ";;Who?;x;;;odd;;",
    ]
    (tmp_path / "own.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    counts = convert("csv", tmp_path / "own.csv", tmp_path / "rows.jsonl", show_progress=False)
    one, two, three = read_rows(tmp_path)
    assert (one.id, one.image, one.answers) == ("one", jpeg(), ("[2, 3]", "2 to 3", "two to three"))
    assert (one.search_required, one.kind, one.category, one.meta) == (
        True,
        "whole_image",
        "maths",
        {"note": "by hand"},
    )
    assert (two.id, two.kind, two.search_required) == ("own-3", "", None)
    assert (three.image, three.answers, three.search_required) == ("", ("Ada", "A. L."), False)
    assert (counts.read, counts.written, counts.rejected.total()) == (10, 3, 7)
    expected = {4: "no answer", 5: "'perhaps'", 6: "no image can be read", 7: "note: line 8 has an image", 8: "question",
                9: "already used by row 1", 10: "unknown kind 'odd'"}  # fmt: skip
    reasons = refused(tmp_path)
    assert reasons.keys() == expected.keys() and all(text in reasons[row] for row, text in expected.items()), reasons
