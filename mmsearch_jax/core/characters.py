r"""Text from outside: lone surrogates (half a character, which UTF-8 cannot encode), and short forms for messages."""

from __future__ import annotations

import re
import reprlib
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")
_LONGEST_NAME = 300
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 120


def brief(value: Any) -> str:
    """The value for an error message, as Python writes it: on one line, and cut where it is long or deeply nested."""
    return _BRIEF.repr(value)


def brief_name(name: str) -> str:
    """The name of a file for an error message: on one line, and without its middle if it is very long."""
    shown = name if name.isprintable() else repr(name)[1:-1]
    half = _LONGEST_NAME // 2
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[:half]}...{shown[-half:]}"


def half_character(text: str) -> str | None:
    """The first half character of a text, written as its code point; None if all characters are whole."""
    found = _HALF.search(text)
    return f"U+{ord(found[0]):04X} at {found.start()}" if found else None


def whole_characters(value: Any) -> Any:
    """A JSON value whose texts (keys, too) have U+FFFD in place of each half character; two halves in order are joined."""
    if isinstance(value, str):
        if _HALF.search(value) is None:
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [whole_characters(each) for each in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(each) for key, each in value.items()}
    return value
