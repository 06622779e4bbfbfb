"""The lines and sentences of a page that best fit a query. Extracts are whole, never rewritten.

All results pass through here: pages of a corpus folder and passages of an index (`shown_result`, also for what
`mmsearch index search` prints), what an engine says, and the pages that are read of the web (`fitted`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import unicodedata
from collections.abc import Sequence

from mmsearch_jax.core.search_api import SearchResult
from tools_server.inert import inert_result
from tools_server.paragraphs import paragraphs
from tools_server.ranking import STOP_WORDS, words

MAX_SNIPPET_CHARS = 160
SEPARATOR = "; "
"""Separates the extracts of a snippet."""


def _beginnings() -> str:
    """The letters that may begin a sentence, as ranges of a character class."""
    letters = [code for code in range(0x10000) if unicodedata.category(chr(code)) in ("Lu", "Lt", "Lo")]
    ranges, first = [], letters[0]
    for code, after in itertools.pairwise([*letters, 0x20000]):
        if after != code + 1:
            ranges.append(f"\\u{first:04x}-\\u{code:04x}")
            first = after
    return "".join(ranges)


# After a full stop a blank must follow, and a capital, a digit or a letter of a script that has no capitals; the full stops of
# other scripts are unambiguous.
_SENTENCE_END = re.compile(
    rf"(?<=[.!?])\s+(?=[\"'(«“„]?[{_beginnings()}0-9])|(?<=[。！？｡।؟])(?![。！？」』”’）])\s*|(?<=[。！？][」』”’）])\s*"
)
_FACT = re.compile(r"([^:：.!?。！？]{1,40})(?:: |：)(.+)", re.DOTALL)


def split_extracts(text: str) -> list[str]:
    """A page's paragraphs; prose is split into its sentences, a "Label: value" line is kept whole."""
    return [extract for line in paragraphs(text) for extract in ([line] if is_fact(line) else split_sentences(line))]


def split_sentences(line: str) -> list[str]:
    """A line of prose, split after full stops, question marks and exclamation marks that a capital or a digit follows."""
    return [sentence for sentence in _SENTENCE_END.split(line) if sentence]


def is_fact(line: str) -> bool:
    """Whether a line is of the form "Label: value" with a label of at most five words."""
    match = _FACT.fullmatch(line)
    return match is not None and len(words(match[1])) <= 5


def extract(text: str, query: str, title: str, max_chars: int) -> str:
    """What a result shows of a page or a passage of a corpus: the extracts that best fit the query; 0: all of the text."""
    return choose_extracts(_extracts(text), query, title, max_chars) if max_chars else text


def shown_result(result: SearchResult, query: str, extract_chars: int, max_chars: int) -> SearchResult:
    """What text search shows of a result of a corpus, made inert.

    Args:
      result: its snippet is all of the text, from which extracts are chosen before it is cut.
      extract_chars, max_chars: the settings `local.extract_chars` and `limits.max_snippet_chars`.
    """
    chosen = extract(result.snippet, query, result.title, extract_chars)
    shown = inert_result(dataclasses.replace(result, snippet=chosen))
    return dataclasses.replace(shown, snippet=fitted(shown.snippet, query, shown.title, max_chars))


def fitted(text: str, query: str, title: str, max_chars: int) -> str:
    """The text, or the extracts of a longer one that best fit the query."""
    return text if len(text) <= max_chars else choose_extracts(split_extracts(text), query, title, max_chars)


@functools.lru_cache(maxsize=4096)
def _extracts(text: str) -> tuple[str, ...]:
    return tuple(split_extracts(text))


def choose_extracts(
    extracts: Sequence[str], query: str, title: str = "", max_chars: int = MAX_SNIPPET_CHARS, fitting_only: bool = False
) -> str:
    """The one to three extracts that best fit the query, best first, joined by `SEPARATOR`.

    Words of the page's title don't count: every line of a page on Peru is about Peru. Where no other word of
    the query occurs, the page's first extracts are taken. Extracts are whole; only a sentence that is longer
    than the limit and stands first is cut, at a word, marked by "..."; a "Label: value" line that stands
    first is never cut.

    Args:
      fitting_only: "" where no extract has a word of the query, instead of the first ones.
    """
    about = set(words(title))
    wanted = [w for w in dict.fromkeys(words(query)) if w not in about and w not in STOP_WORDS]
    scores = [(_fit(extract, wanted), -i) for i, extract in enumerate(extracts)]
    order = [-i for _, i in sorted(scores, reverse=True)]
    relevant = [i for i in order if scores[i][0] > 0]
    if fitting_only and not relevant:
        return ""
    chosen: list[str] = []
    # The page's first lines add context to the best extract, unless that is long.
    for i in [*relevant[:3], *(j for j in range(len(extracts)) if j not in relevant)]:
        length = len(SEPARATOR.join([*chosen, extracts[i]]))
        if not chosen:
            chosen.append(extracts[i] if is_fact(extracts[i]) else _cut(extracts[i], max_chars))
        elif length <= max_chars and len(chosen) < 3 and (i in relevant or not relevant):
            chosen.append(extracts[i])
    return SEPARATOR.join(chosen)


def _fit(extract: str, wanted: Sequence[str]) -> float:
    """How well an extract answers: query words in its label count most, and more if the query has the whole label."""
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
    """Cuts plural and similar endings, so that "populations" matches "population"."""
    for ending, rest in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if len(word) > 4 and word.endswith(ending) and not word.endswith("ss"):
            return word[: -len(ending)] + rest
    return word


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    whole, _, last = text[: max_chars - 3].rpartition(" ")
    # Scripts without blanks are cut between characters.
    return (whole if 2 * len(whole) >= max_chars else f"{whole} {last}".strip()).rstrip(",;: ") + "..."
