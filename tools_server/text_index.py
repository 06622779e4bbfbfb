"""Full-text search over the corpus's pages, and the lines of a page that best fit a query.

SQLite's FTS5 (BM25) finds candidates; a second look puts pages whose whole title stands in the query first,
so that "Guinea capital" meets Guinea before Papua New Guinea. Snippets are extracts: whole lines and
sentences, never rewritten.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.errors import DataError

MAX_SNIPPET_CHARS = 160
MAX_QUERY_WORDS = 32
SEPARATOR = "; "
"""Stands between the extracts of a snippet."""
_NUM_CANDIDATES = 60
_STOP_WORDS = frozenset({
    "a", "an", "and", "are", "at", "by", "did", "do", "does", "for", "from", "has", "have", "how", "i",
    "in", "is", "it", "its", "me", "of", "on", "or", "that", "the", "there", "this", "to", "was", "were",
    "what", "when", "where", "which", "who", "whose", "with", "many", "much",
})  # fmt: skip
_WORD = re.compile(r"\w+", re.UNICODE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-ZÀ-Þ0-9])")
_FACT = re.compile(r"([^:.!?]{1,40}): (.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Page:
    """One page: a title, an address, and text made of lines ("Capital: Paris") and prose."""

    title: str
    url: str
    text: str


@dataclasses.dataclass(frozen=True)
class Hit:
    """A page that was found, its extract for the query, and its score (higher is better)."""

    page: Page
    snippet: str
    score: float


class TextIndex:
    """Pages in an in-memory FTS5 table. Safe to use from several threads."""

    def __init__(self, pages: Sequence[Page]):
        self._pages = list(pages)
        self._titles = [words(page.title) for page in self._pages]
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE pages USING fts5(title, text, content='', "
            "tokenize='porter unicode61 remove_diacritics 2')"
        )
        self._database.executemany(
            "INSERT INTO pages(rowid, title, text) VALUES (?, ?, ?)",
            ((i, page.title, page.text) for i, page in enumerate(self._pages)),
        )
        self._extracts = functools.lru_cache(maxsize=4096)(self._read_extracts)

    def __len__(self) -> int:
        return len(self._pages)

    @classmethod
    def from_corpus(cls, folder: Path) -> TextIndex:
        """Reads `pages.jsonl`.

        Raises:
          DataError: the file is missing or a line is not a page.
        """
        return cls(read_pages(folder))

    def search(self, query: str, top_k: int) -> list[Hit]:
        """The best pages for a query, best first; none where no word of it is known. Any text is a valid
        query."""
        match = match_expression(query)
        if not match:
            return []
        with self._lock:
            rows = self._database.execute(
                "SELECT rowid, bm25(pages, 4.0, 1.0) FROM pages WHERE pages MATCH ? ORDER BY 2 LIMIT ?",
                (match, _NUM_CANDIDATES),
            ).fetchall()
        asked = words(query)
        content = [word for word in asked if word not in _STOP_WORDS]
        scored = sorted(((self._score(row, -bm25, asked, content), row) for row, bm25 in rows), reverse=True)
        hits = []
        for score, row in scored[:top_k]:
            page = self._pages[row]
            snippet = choose_extracts(self._extracts(row), query, page.title)
            hits.append(Hit(page, snippet, round(score, 4)))
        return hits

    def close(self) -> None:
        """Frees the table."""
        self._database.close()

    def _score(self, row: int, bm25: float, asked: list[str], content: list[str]) -> float:
        """BM25, plus how much of the title is in the query and whether it stands there word by word."""
        title = self._titles[row]
        if not title:
            return bm25
        named = [word for word in title if word not in _STOP_WORDS] or title
        covered = sum(word in asked for word in named) / len(named)
        told = sum(word in named for word in content) / max(len(content), 1)
        whole = _contains(asked, title)
        return bm25 + 4.0 * covered * told + (6.0 + len(title) if whole else 0.0)

    def _read_extracts(self, row: int) -> tuple[str, ...]:
        return tuple(split_extracts(self._pages[row].text))


def read_pages(folder: Path) -> list[Page]:
    """The pages of a corpus's `pages.jsonl`.

    Raises:
      DataError: the file is missing, or a line is not a page; names file, line and field.
    """
    path = folder / "pages.jsonl"
    if not path.is_file():
        raise DataError(f"no pages at {path}: --corpus must name a folder with pages.jsonl and images.jsonl")
    pages = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error.msg}): each line must be one page") from error
        for key in ("title", "text"):
            if not isinstance(record, dict) or not isinstance(record.get(key), str):
                raise DataError(f"{path}:{number}: field {key!r} must be a string")
        pages.append(Page(record["title"], str(record.get("url") or ""), record["text"]))
    return pages


def words(text: str) -> list[str]:
    """Lower-case words without diacritics."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in folded if not unicodedata.combining(c)))


def split_extracts(text: str) -> list[str]:
    """A page's lines; a line of prose is split into its sentences, a "Label: value" line is kept whole."""
    extracts = []
    for line in text.splitlines():
        line = " ".join(line.split())
        if line:
            extracts += [line] if is_fact(line) else _SENTENCE_END.split(line)
    return extracts


def is_fact(line: str) -> bool:
    """Whether a line is of the form "Label: value" with a label of at most five words."""
    match = _FACT.fullmatch(line)
    return match is not None and len(words(match[1])) <= 5


def choose_extracts(extracts: Sequence[str], query: str, title: str = "", max_chars: int = MAX_SNIPPET_CHARS) -> str:
    """The one to three extracts that best fit the query, best first, joined by `SEPARATOR`.

    Words of the page's title don't count: every line of a page on Peru is about Peru. Where no other word of
    the query occurs, the page's first extracts are taken. Extracts are whole; only a sentence that is longer
    than the limit and stands first is cut, at a word, marked by "..."; a "Label: value" line that stands
    first is never cut.
    """
    about = set(words(title))
    wanted = [w for w in dict.fromkeys(words(query)) if w not in about and w not in _STOP_WORDS]
    scores = [(_fit(extract, wanted), -i) for i, extract in enumerate(extracts)]
    order = [-i for _, i in sorted(scores, reverse=True)]
    relevant = [i for i in order if scores[i][0] > 0]
    chosen: list[str] = []
    # Beside what fits, the page's opening lines give context; a long best extract stands alone.
    for i in [*relevant[:3], *(j for j in range(len(extracts)) if j not in relevant)]:
        length = len(SEPARATOR.join([*chosen, extracts[i]]))
        if not chosen:
            chosen.append(extracts[i] if is_fact(extracts[i]) else _cut(extracts[i], max_chars))
        elif length <= max_chars and len(chosen) < 3 and (i in relevant or not relevant):
            chosen.append(extracts[i])
    return SEPARATOR.join(chosen)


def _fit(extract: str, wanted: Sequence[str]) -> float:
    """How well an extract answers: query words in its label count most, all of the label asked for still
    more."""
    if not wanted:
        return 0.0
    match = _FACT.fullmatch(extract) if is_fact(extract) else None
    label = [_stem(w) for w in words(match[1])] if match else []
    body = {_stem(w) for w in words(match[2] if match else extract)}
    stems = [_stem(w) for w in wanted]
    in_label = sum(w in label for w in stems)
    score = 3.0 * in_label + sum(w in body for w in stems) / (1.0 + 0.02 * len(body))
    if in_label:
        score += 2.0 * in_label / len(label)
    return score


def _stem(word: str) -> str:
    """Cuts plural endings and the like, so that "populations" meets "population"."""
    for ending, rest in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if len(word) > 4 and word.endswith(ending) and not word.endswith("ss"):
            return word[: -len(ending)] + rest
    return word


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    return text[: max_chars - 3].rsplit(" ", 1)[0].rstrip(",;: ") + "..."


def match_expression(query: str) -> str:
    """The query's words as an FTS5 expression: any of them. Quoting makes every word plain text to SQLite."""
    found = list(dict.fromkeys(words(query)))
    kept = [word for word in found if word not in _STOP_WORDS] or found
    return " OR ".join(f'"{word}"' for word in kept[:MAX_QUERY_WORDS])


def _contains(sequence: Sequence[str], part: Sequence[str]) -> bool:
    return any(list(sequence[i : i + len(part)]) == list(part) for i in range(len(sequence) - len(part) + 1))
