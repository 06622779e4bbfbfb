"""How full-text search ranks: the words of a query, and what a page's title adds to its BM25 score.

A page whose whole title is in the query comes first, so that "Guinea capital" finds Guinea before Papua New Guinea.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_QUERY_WORDS = 32
NUM_CANDIDATES = 60
"""Number of BM25's best pages that are ranked again by their titles."""
TITLE_WEIGHT, TEXT_WEIGHT = 4.0, 1.0
"""Weights of a word in BM25, in the title and in the text."""
STOP_WORDS = frozenset(
    {
        "a",
        "an",
        "and",
        "are",
        "at",
        "by",
        "did",
        "do",
        "does",
        "for",
        "from",
        "has",
        "have",
        "how",
        "i",
        "in",
        "is",
        "it",
        "its",
        "me",
        "of",
        "on",
        "or",
        "that",
        "the",
        "there",
        "this",
        "to",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whose",
        "with",
        "many",
        "much",
    }
)
_WORD = re.compile(r"\w+", re.UNICODE)


def words(text: str) -> list[str]:
    """Lower-case words without diacritics."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in folded if not unicodedata.combining(c)))


def match_expression(query: str) -> str:
    """The query's words as an FTS5 expression: any of them. The words are quoted, so that SQLite reads no operators."""
    found = list(dict.fromkeys(words(query)))
    kept = [word for word in found if word not in STOP_WORDS] or found
    return " OR ".join(f'"{word}"' for word in kept[:MAX_QUERY_WORDS])


def with_title(bm25: float, title: Sequence[str], asked: Sequence[str]) -> float:
    """The score of a page: BM25, plus the share of its title that is in the query, and whether the title is there as a phrase.

    Args:
      bm25: higher is better.
      title: the title's words.
      asked: the query's words.
    """
    if not title:
        return bm25
    content = [word for word in asked if word not in STOP_WORDS]
    named = [word for word in title if word not in STOP_WORDS] or title
    covered = sum(word in asked for word in named) / len(named)
    told = sum(word in named for word in content) / max(len(content), 1)
    return bm25 + 4.0 * covered * told + (6.0 + len(title) if _contains(asked, title) else 0.0)


def _contains(sequence: Sequence[str], part: Sequence[str]) -> bool:
    return any(list(sequence[i : i + len(part)]) == list(part) for i in range(len(sequence) - len(part) + 1))
