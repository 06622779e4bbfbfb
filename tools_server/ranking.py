"""How full-text search ranks: the words of a query, and what a page's title adds to its BM25 score.

A page whose whole title is in the query comes first, so that "Guinea capital" finds Guinea before Papua New Guinea.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

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
_WORD = re.compile(r"\w+")
TOKENIZER = "porter unicode61 remove_diacritics 2 categories 'L* N* Co M*'"
"""FTS5's tokenizer for the text that `indexable` made. Marks belong to words: vowels of Indic scripts are marks."""
# Scripts that write without blanks between words, or with endings that a stemmer for English does not know: Han, kana, hangul,
# Thai, Lao, Khmer, Burmese, Tibetan; and full-width forms of letters and digits, which appear among them.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc"
    "\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_UNSPACED}\u3099\u309a]+")
# Marks that a search ignores: diacritics, and the vowel points of Hebrew and Arabic, which ordinary text leaves out.
_IGNORED = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8"
    "\u06ea-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)


def words(text: str) -> list[str]:
    """Lower-case words without diacritics; of scripts without blanks overlapping pairs of characters.

    >>> words("Café 長城建")
    ['cafe', '長城', '城建']
    """
    return [word for part, unspaced in _parts(text) for word in (_grams(part) if unspaced else [part])]


def indexable(text: str) -> str:
    """The text as it is given to an engine, folded as `words` folds a query, so that its words are found in it.

    Engines fold Latin letters only, and some of these in another way (й, ß, Greek accents). Runs of scripts without blanks
    become their pairs of characters and their single characters, for queries of one character.
    """
    if text.isascii():
        return text
    return _RUN.sub(lambda run: f" {' '.join(_indexed(run[0]))} ", _folded(text))


def match_expression(query: str) -> str:
    """The query's words as an FTS5 expression: any of them. The words are quoted, so that SQLite reads no operators."""
    return " OR ".join(f'"{word}"' for word in query_words(query))


def query_words(query: str) -> list[str]:
    """The words that are searched for: without stop words, unless there are no others. A pair of characters counts half."""
    kept = [word for word in dict.fromkeys(words(query)) if word not in STOP_WORDS] or list(dict.fromkeys(words(query)))
    shares = itertools.accumulate(0.5 if _RUN.fullmatch(word) else 1.0 for word in kept)
    return [word for word, share in zip(kept, shares, strict=True) if share <= MAX_QUERY_WORDS]


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Folded words, and runs of scripts without blanks (True)."""
    folded = _folded(text)
    at = 0
    for run in _RUN.finditer(folded):
        yield from ((word, False) for word in _words(folded[at : run.start()]))
        yield run[0], True
        at = run.end()
    yield from ((word, False) for word in _words(folded[at:]))


def _folded(text: str) -> str:
    # NFKD may give capitals (№); a capital I is Turkish, too.
    spelt = unicodedata.normalize("NFKD", text.casefold()).casefold().replace("ı", "i")
    return unicodedata.normalize("NFC", _IGNORED.sub("", spelt))


def _words(text: str) -> list[str]:
    if text.isascii():
        return _WORD.findall(text)
    # Python counts the vowel signs of Indic scripts as no part of a word.
    kept = "".join(c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " " for c in text)
    return kept.split()


def _grams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(max(1, len(run) - 1))]


def _indexed(run: str) -> list[str]:
    found = []
    for part, unspaced in _parts(run):
        found += [*_grams(part), *part] if unspaced and len(part) > 1 else [part]
    return found


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
