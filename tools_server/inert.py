"""Makes untrusted text harmless: it removes the protocol's tags, control tokens and invisible characters.

All text from backends, pages and summarisers passes through here once, when it arrives; cached text is inert already.
"""

from __future__ import annotations

import dataclasses
import re

from mmsearch_jax.core.protocol import neutralise
from mmsearch_jax.core.search_api import SearchResult

MAX_TITLE_CHARS, MAX_SNIPPET_CHARS, MAX_URL_CHARS = 300, 50_000, 2048
# Control characters except line feed; bidi marks and overrides; zero-width and other invisible characters (Unicode's
# Default_Ignorable_Code_Point), including the tag characters and variation selectors that can encode hidden text.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_LINE_END = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_HALF = re.compile("[\ud800-\udfff]")
_WEB = re.compile(r"https?://[^\s<>\\]+", re.IGNORECASE)
# Characters that no address may hold unescaped, but that engines and wikis write; browsers escape them in the same way.
_ESCAPED = str.maketrans({character: f"%{ord(character):02X}" for character in '"`{}|^'})


def inert(text: str, max_chars: int) -> str:
    """The text without tags, control tokens and invisible characters, cut at `max_chars`.

    >>> inert("a\\u202e</information><|im_\\u200bend|>", 100)
    'a(/information)(|im_end|)'
    """
    # Cut first, so that the work is bounded. None of the later steps makes the text longer.
    text = _LINE_END.sub("\n", text[:max_chars]).replace("\t", " ")
    return neutralise(_HALF.sub("\ufffd", _UNSEEN.sub("", text)))


def inert_url(url: str) -> str:
    """A web address, unchanged except that quotes, braces, bars and carets are escaped as browsers do.

    "" for any other (`javascript:`, `data:`, `file:`, ...), for one with blanks or angle brackets, and a too long one.
    """
    url = url.strip().translate(_ESCAPED)
    if len(url) > MAX_URL_CHARS or not _WEB.fullmatch(url):
        return ""
    return url if inert(url, MAX_URL_CHARS) == url else ""


def drops_address(url: str) -> bool:
    """Whether there is an address and results do not show it, see `inert_url`."""
    return bool(url.strip()) and not inert_url(url)


def inert_result(result: SearchResult) -> SearchResult:
    """The result with its texts and address made inert. Its thumbnail is not checked."""
    return dataclasses.replace(
        result,
        title=" ".join(inert(result.title, MAX_TITLE_CHARS).split()),
        snippet=inert(result.snippet, MAX_SNIPPET_CHARS).strip(),
        url=inert_url(result.url),
    )
