"""Paragraphs of plain text: lines that were wrapped at a width are joined, so that sentences are whole.

A text counts as wrapped if many of its lines break inside a sentence. In any other text, which may be mostly code, tables or
lists, each block between empty lines is judged by itself. The lines of all other blocks stay as they are.
"""

from __future__ import annotations

import itertools
import re

_MIN_WIDTH, _MAX_WIDTH = 30, 120
_MIN_SHARE = 0.2
"""Share of line breaks inside a sentence from which on a text counts as wrapped."""
_PROSE_SHARE = 0.5
_ENDS = re.compile(r"[.!?:;。！？：；][\"'”’)\]*`_]*$")
_STARTS_PART = re.compile(r"[-*+•·‣|#>]\s|\(?\d{1,3}[.)]\s|\(?[a-z][.)]\s|[A-Z][^:.!?]{0,39}: |\.\. |>>> |\.\.\. ")
_RULE = re.compile(r"[\W_]{3,}")


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, each on one line, white space collapsed, without empty ones."""
    lines = _lines(text)
    if _breaks_sentences(lines, _MIN_SHARE):
        return _joined(lines)
    blocks = (list(block) for filled, block in itertools.groupby(lines, bool) if filled)
    return [line for block in blocks for line in (_joined(block) if _breaks_sentences(block, _PROSE_SHARE) else block)]


def is_prose(text: str) -> bool:
    """Whether a text is hard-wrapped prose: most of its line breaks are inside sentences."""
    return _breaks_sentences(_lines(text), _PROSE_SHARE)


def _joined(lines: list[str]) -> list[str]:
    width = sorted(len(line) for line in lines if line)[int(0.9 * sum(map(bool, lines)))]
    found: list[str] = []
    last = ""
    for line in lines:
        if _RULE.fullmatch(line):
            line = ""  # it underlines a heading or borders a table
        if line and last and _continues(last, line, width):
            found[-1] += f" {line}"
        elif line:
            found.append(line)
        last = line
    return found


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def _breaks_sentences(lines: list[str], min_share: float) -> bool:
    pairs = [(a, b) for a, b in itertools.pairwise(lines) if a and b]
    inside = sum(_is_inside_sentence(a, b) for a, b in pairs)
    return bool(inside) and inside >= min_share * len(pairs)


def _is_inside_sentence(line: str, following: str) -> bool:
    return _MIN_WIDTH < len(line) <= _MAX_WIDTH and following[0].islower() and not _ENDS.search(line)


def _continues(line: str, following: str, width: int) -> bool:
    """Whether the break between two adjacent lines of a wrapped text is one of wrapping."""
    if _STARTS_PART.match(following):
        return False
    if following[0].islower():
        return True
    # A line that ends early ends its paragraph, or is a heading.
    return len(line) + 1 + len(following.split()[0]) > 0.8 * width
