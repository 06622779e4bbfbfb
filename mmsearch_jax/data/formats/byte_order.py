"""Byte order marks: which encoding of Unicode the bytes of a text file are in."""

from __future__ import annotations

import codecs

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def byte_order(head: bytes) -> tuple[bytes, str]:
    """The mark that a file's first four bytes begin with, and the encoding that it stands for; b"" and UTF-8 without one."""
    return next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))
