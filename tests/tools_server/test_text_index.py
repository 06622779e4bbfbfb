"""Text search: the order of pages, and the lines that are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch_jax.core.errors import DataError
from tests.tools_server.small_corpus import PAGES
from tools_server.extracts import choose_extracts, extract, split_extracts
from tools_server.text_index import TextIndex, read_pages

INDEX = TextIndex(PAGES)


@pytest.mark.parametrize(
    ("query", "title", "start"),
    [
        ("Velmora capital", "Velmora", "Capital: Ostrin"),
        ("What is the capital of New Velmora?", "New Velmora", "Capital: Harn"),
        ("new velmora national anthem", "New Velmora", "National anthem: Rise, O Hills"),
        ("Velmora highest point", "Velmora", ""),
        ("geography of velmora area", "Geography of Velmora", "Area: 4,100 sq km"),
        ("The Tower country", "Thé Tower", "Country: Velmora"),
    ],
)
def test_the_page_whose_title_is_asked_for_comes_first_with_its_fitting_line(query: str, title: str, start: str):
    first = INDEX.search(query, 3)[0]
    assert first.page.title == title
    assert extract(first.page.text, query, title, 160).startswith(start)


def test_top_k_bounds_the_hits_and_scores_fall():
    hits = INDEX.search("velmora capital population", 2)
    assert len(hits) == 2
    assert hits[0].score >= hits[1].score


@pytest.mark.parametrize("query", ["", "   ", '"', "zzzz qqqq", "AND OR NOT", "*", "title:", "(("])
def test_a_query_without_known_words_finds_nothing_or_something_but_never_fails(query: str):
    assert isinstance(INDEX.search(query, 5), list)


def test_unknown_words_find_nothing():
    assert INDEX.search("zzzz qqqq", 5) == []


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_valid_query(query: str):
    for hit in INDEX.search(query, 5):
        assert extract(hit.page.text, query, hit.page.title, 160)


def test_extracts_are_whole_lines_and_sentences():
    text = "Capital: Ostrin\nIt lies by the sea. Its port is old. Saint Ann: a saint."
    extracts = split_extracts(text)
    assert extracts == ["Capital: Ostrin", "It lies by the sea.", "Its port is old.", "Saint Ann: a saint."]
    assert choose_extracts(extracts, "port sea") in (
        "It lies by the sea.; Its port is old.",
        "Its port is old.; It lies by the sea.",
    )


def test_without_a_fitting_line_the_page_opens_the_snippet():
    assert choose_extracts(["Capital: A", "Area: 1"], "Velmora", "Velmora") == "Capital: A; Area: 1"


def test_snippets_are_bounded():
    extracts = [f"Label {i}: {'word ' * 12}".strip() for i in range(9)]
    assert len(choose_extracts(extracts, "label word")) <= 160
    assert choose_extracts(["word " * 90], "word").endswith("word...")


def test_a_label_line_is_never_cut():
    line = "Capital: " + "very long name " * 20
    assert choose_extracts([line.strip()], "capital") == line.strip()


def test_a_missing_or_broken_pages_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no pages at"):
        read_pages(tmp_path)
    (tmp_path / "pages.jsonl").write_text('{"title": "A", "text": "b"}\n{"title": 3, "text": ""}\n')
    with pytest.raises(DataError, match=r"pages.jsonl:2: field 'title'"):
        read_pages(tmp_path)
