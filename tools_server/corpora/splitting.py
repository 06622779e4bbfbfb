"""Splits long pages into passages of a bounded number of words, at the ends of lines and sentences if possible."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from tools_server.extracts import is_fact, split_sentences
from tools_server.hits import Page
from tools_server.paragraphs import paragraphs

MAX_WORDS = 200
"""Search-R1's wiki-18 has passages of 100 words, which stay unchanged."""
_CHARS_PER_WORD = 12
"""A "word" longer than this counts for several: some languages write without spaces."""


def split_pages(pages: Iterable[Page], max_words: int = MAX_WORDS) -> Iterator[Page]:
    """Each page as passages of about equal length, none above `max_words`.

    A page that is short enough stays unchanged. The parts of a longer one keep its title and address; their ids are the
    page's id plus "#1", "#2", ...
    """
    for page in pages:
        total = _num_words(page.text)
        if total <= max_words:
            yield page
            continue
        aim = math.ceil(total / math.ceil(total / max_words))
        for number, text in enumerate(_passages(page.text, aim, max_words), 1):
            yield dataclasses.replace(page, text=text, id=f"{page.id}#{number}")


def _passages(text: str, aim: int, max_words: int) -> Iterator[str]:
    """Ends a passage when it has `aim` words, or when the next unit does not fit."""
    passage, filled = "", 0
    for separator, unit in _units(text, aim):
        length = _num_words(unit)
        if passage and (filled >= aim or filled + length > max_words):
            yield passage
            passage, filled = "", 0
        passage += separator + unit if passage else unit
        filled += length
    if passage:
        yield passage


def _units(text: str, max_words: int) -> Iterator[tuple[str, str]]:
    """Units that stay whole, each with its separator: "Label: value" lines, sentences, and pieces of too long ones."""
    for line in paragraphs(text):
        separator = "\n"
        for sentence in [line] if is_fact(line) else split_sentences(line):
            for piece in _pieces(sentence, max_words):
                yield separator, piece
                separator = " "


def _pieces(sentence: str, max_words: int) -> Iterator[str]:
    if _num_words(sentence) <= max_words:
        if sentence:
            yield sentence
        return
    piece: list[str] = []
    filled = 0
    for word in sentence.split():
        for start in range(0, len(word), max_words * _CHARS_PER_WORD):
            part = word[start : start + max_words * _CHARS_PER_WORD]
            if piece and filled + _num_words(part) > max_words:
                yield " ".join(piece)
                piece, filled = [], 0
            piece.append(part)
            filled += _num_words(part)
    yield " ".join(piece)


def _num_words(text: str) -> int:
    return sum(math.ceil(len(word) / _CHARS_PER_WORD) for word in text.split())
