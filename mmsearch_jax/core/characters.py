r"""Half characters: JSON may hold "\ud83d" alone, one half of a pair, which no UTF-8 file and no tokenizer can hold."""

from __future__ import annotations

import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


def half_character(text: str) -> str | None:
    """The first half character of a text, written as its code point; None if all characters are whole."""
    found = _HALF.search(text)
    return f"U+{ord(found[0]):04X} at character {found.start() + 1}" if found else None


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
