"""Long pages are split into passages: bounded, without loss, at natural boundaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tools_server.corpora.splitting import split_pages
from tools_server.hits import Page


def split(text: str, max_words: int) -> list[Page]:
    return list(split_pages([Page("Ostrin", "https://x.example/ostrin", text, "7")], max_words))


def test_a_short_page_is_given_back_as_it_is():
    page = Page("Ostrin", "", "Capital:  no\n\n  It is a port.", "7")
    assert list(split_pages([page], 7)) == [page]


def test_a_long_page_is_cut_at_sentences_into_parts_of_like_length_that_keep_title_and_address():
    parts = split(" ".join(f"This is sentence number {i}." for i in range(9)), 20)
    assert [len(part.text.split()) for part in parts] == [15, 15, 15]
    assert parts[1].text.startswith("This is sentence number 3.")
    assert [part.id for part in parts] == ["7#1", "7#2", "7#3"]
    assert {(part.title, part.url) for part in parts} == {("Ostrin", "https://x.example/ostrin")}


def test_label_lines_stay_whole_and_on_lines_of_their_own():
    text = "Capital: St. Ann. Old town\nArea: 3 sq km\n" + "It is a port. " * 6
    parts = split(text, 12)
    assert parts[0].text.splitlines()[:2] == ["Capital: St. Ann. Old town", "Area: 3 sq km"]


def test_text_without_spaces_or_sentences_is_bounded_too():
    parts = split("海" * 1000, 10)
    assert "".join(part.text for part in parts) == "海" * 1000
    assert max(len(part.text) for part in parts) <= 120
    assert [len(part.text.split()) for part in split("word " * 95, 10)] == [10] * 9 + [5]


@given(st.text(alphabet="aB.:?\n -海", max_size=400), st.integers(1, 30))
def test_no_text_is_lost_and_no_part_too_long(text: str, max_words: int):
    parts = split(text, max_words)
    if len(parts) > 1:
        assert all(part.text and len(part.text.split()) <= max_words for part in parts)
    assert "".join("".join(part.text for part in parts).split()) == "".join(text.split())
