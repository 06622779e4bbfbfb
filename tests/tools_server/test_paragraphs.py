"""Hard-wrapped text gives whole sentences; the lines of any other text stay as they are."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools_server.corpora.splitting import split_pages
from tools_server.extracts import split_extracts
from tools_server.fetch.extraction import one_line_blocks, page_text
from tools_server.fetch.fetcher import Fetched
from tools_server.hits import Page
from tools_server.paragraphs import paragraphs

SENTENCES = [
    "The tower of Velmora was built in 1889 by masons who came from the northern coast of the country.",
    "It does not stand in the capital, as many travellers believe, but in the harbour town of Ostrin.",
    "Visitors may climb it only in summer unless the keeper, who lives nearby, gives them a written permit.",
    "The lamp is never lit while the fishing fleet is at sea because the crews rely on other marks.",
]
WRAPPED = "\n\n".join(textwrap.fill(" ".join(SENTENCES[i : i + 2]), 60) for i in (0, 2))


def fetched(text: str, kind: str) -> str:
    return page_text(Fetched(text.encode(), kind, "utf-8"), 10_000)


@pytest.mark.parametrize("width", [40, 60, 72, 100])
@pytest.mark.parametrize("indent", ["", "    "])
def test_wrapped_prose_gives_its_sentences(width: int, indent: str):
    fill = textwrap.fill(" ".join(SENTENCES), width, initial_indent=indent, subsequent_indent=indent)
    assert split_extracts(fill) == SENTENCES


def test_pages_plain_text_and_own_passages_alike_give_whole_sentences():
    markup = "".join(f"<p>{part}</p>" for part in WRAPPED.split("\n\n"))
    for text in (
        fetched(WRAPPED, "text/plain"),
        fetched(f"<html><body><article>{markup}</article></body></html>", "text/html"),
        WRAPPED,
    ):
        assert split_extracts(text) == SENTENCES
    parts = list(split_pages([Page("Tower", "", WRAPPED)], max_words=20))
    assert [part.text for part in parts] == SENTENCES


def test_headings_items_rules_and_facts_stay_apart_in_wrapped_text():
    text = f"The Tower\n=========\n\n{WRAPPED}\n\n- first thing\n- second thing that is\n  wrapped\nHeight: 90 m\nKeeper: one"
    assert paragraphs(text)[0] == "The Tower"
    assert paragraphs(text)[-4:] == ["- first thing", "- second thing that is wrapped", "Height: 90 m", "Keeper: one"]


CODE = "\n\n".join(f"x = {i}\ny = call(x)\nprint(x, y)\nz = done(y)" for i in range(12))


@pytest.mark.parametrize("rest", [CODE, "\n".join(f"- item {i}" for i in range(40)), "word " * 200 + "and\nthe end."])
def test_wrapped_prose_gives_its_sentences_whatever_else_the_text_holds(rest: str):
    extracts = split_extracts(f"{rest}\n\n{WRAPPED}\n\n{rest}")
    at = extracts.index(SENTENCES[0])
    assert extracts[at : at + 4] == SENTENCES
    assert [extract for extract in extracts if "print(" in extract] == ["print(x, y)"] * (24 if rest == CODE else 0)


def test_code_in_a_page_is_an_extract_of_its_own():
    code = "import tower\n\ntower.climb(steps=300)\ntower.look()"
    block = f"<PRE class=x><code>{code}</code></PRE>\n{SENTENCES[1]}"
    markup = f"<p>{SENTENCES[0]}</p><p>Call this:</p>{block}<p>{SENTENCES[2]}</p>"
    extracts = split_extracts(fetched(f"<html><body><article>{markup}</article></body></html>", "text/html"))
    assert " ".join(code.split()) in extracts
    assert [extract for extract in extracts if extract in SENTENCES] == SENTENCES[:3]


@pytest.mark.parametrize(
    "text",
    [
        "Capital: Ostrin\nCurrency: lume\nIt lies by the sea.\nA tower stands there",
        "apples\npears\nplums",
        "One line that ends.\nAnother line that ends.\niPhones are sold here.",
        "Roses are red\nViolets are blue\nSugar is sweet",
        "万里长城\n建于公元前七世纪",
    ],
)
def test_lines_of_text_that_was_not_wrapped_stay(text: str):
    assert paragraphs(text) == text.splitlines()


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("aB.,: -\n|é長"), max_size=300))
def test_no_word_is_lost(text: str):
    rules = sum(1 for line in text.splitlines() if line.strip() and not any(c.isalnum() for c in line))
    joined = " ".join(paragraphs(text)).split()
    assert rules or joined == text.split()


@pytest.mark.parametrize("tag", ["pre", "PRE class='newpage'"])
def test_prose_in_preformatted_text_keeps_its_headings_and_paragraphs_apart(tag: str):
    text = f"\n\n1.  The Tower\n\n{WRAPPED}\n"
    for page in (f"<body><div><{tag}>{text}</pre></div></body>", f"<body><{tag}>Keeper: one{text}"):
        found = split_extracts(fetched(page, "text/html"))
        assert found[-4:] == SENTENCES
        assert found[-5].endswith("The Tower")


def test_many_open_blocks_are_read_in_time_that_grows_with_their_length():
    assert one_line_blocks("<pre>\na " * 50_000).count("<p>") == 50_000
    assert one_line_blocks("<pre" * 50_000) == "<pre" * 50_000


def test_a_block_of_code_is_one_extract():
    code = "<pre>for x in y:\n    print(x)\n</pre>"
    page = f"<html><body><article><p>{SENTENCES[0]}</p>{code}<p>{SENTENCES[1]}</p></article></body></html>"
    assert "for x in y: print(x)" in fetched(page, "text/html")
