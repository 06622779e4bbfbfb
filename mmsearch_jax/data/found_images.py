"""Finds images in values of unknown meaning, so that a record's images are not lost under a name that nobody reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")
# The first characters of those signatures in base64; "BM" is too short to be told from text.
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGODdh", "R0lGODlh", "UklGR")
_NAME = re.compile(r"[^\n]{1,500}\.(jpe?g|png|gif|webp|bmp|tiff?)(\?[^\s]*)?", re.IGNORECASE)
_BASE64_LENGTH = 512


def found_images(value: Any) -> list[str | bytes]:
    """The images in a value: encoded bytes, data URLs, base64, and names (paths or URLs) that end as an image's do."""
    return list(_walk(value))


def is_encoded(image: str | bytes) -> bool:
    """Whether an item of `found_images` is the image itself and not its name."""
    return isinstance(image, bytes) or image.startswith("data:") or len(image) >= _BASE64_LENGTH


def _walk(value: Any) -> Iterator[str | bytes]:
    for item in plain_values(value):
        if isinstance(item, bytes):
            if item.startswith(_SIGNATURES) or (item[:4] == b"RIFF" and item[8:12] == b"WEBP"):
                yield item
        elif isinstance(item, str):
            text = item.strip()
            whole = len(text) >= _BASE64_LENGTH and text.startswith(_BASE64)
            if whole or text.startswith("data:image/") or _NAME.fullmatch(text):
                yield item


def plain_values(value: Any, keys: bool = False) -> Iterator[Any]:
    """What a value holds that is neither a mapping nor a list, in any order; with `keys` also the keys of mappings."""
    # Not by recursion, which a value from a file could nest too deeply for.
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += [*item.values(), *(item if keys else ())]
        elif isinstance(item, list | tuple):
            waiting += item
        else:
            yield item
