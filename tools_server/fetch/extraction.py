"""The text of a page: trafilatura's main content, or all visible text where it finds none. Runs in a worker process."""

from __future__ import annotations

import codecs
import re

import trafilatura
from lxml import html
from lxml.etree import ParserError, XMLSyntaxError

from tools_server.fetch.fetcher import Fetched
from tools_server.inert import inert
from tools_server.paragraphs import is_prose, paragraphs

_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_.:-]{2,40})""", re.IGNORECASE)
_META_WITHIN = 2048
_SPACE = re.compile(r"\s+")
_PREFORMATTED = re.compile(r"(<pre\b[^<>]*>(?:(?!</?pre\b).)*)", re.IGNORECASE | re.DOTALL)
_PRE, _END_OF_PRE = re.compile(r"^<pre\b[^<>]*>", re.IGNORECASE), re.compile(r"^</pre\s*>", re.IGNORECASE)
# Bare text behind a block gets a paragraph of its own: trafilatura would drop it.
_TEXT_BEHIND = re.compile(r"^</pre\s*>(?=\s*(?:[^<\s]|<(?:a|b|code|em|i|kbd|span|strong|tt|var)\b))", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# How browsers decode these names (WHATWG Encoding Standard).
_READ_AS = {
    "iso-8859-1": "windows-1252",
    "latin-1": "windows-1252",
    "ascii": "windows-1252",
    "us-ascii": "windows-1252",
}
_CHARSETS = re.compile(
    r"utf-?(8|16|16-?le|16-?be)|(windows|cp)-?(125\d|874|932|949)|iso-?8859-?\d+|koi8-[ru]|big5(-hkscs)?|gbk|gb2312|"
    r"gb18030|euc-?(jp|kr)|shift[-_]jis|sjis|tis-620|mac-?roman"
)
_HIDDEN = (
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "iframe",
    "object",
    "nav",
    "header",
    "footer",
    "form",
    "head",
)


def page_text(page: Fetched, max_chars: int) -> str:
    """The page's text, made inert, without empty lines; "" if there is none."""
    # Not passed as bytes: trafilatura would decompress them again, without a limit.
    source = decode(page)
    if page.content_type != "text/plain":
        source = one_line_blocks(source)
        source = trafilatura.extract(source, include_comments=False) or _visible_text(source)
    return "\n".join(paragraphs(inert(source, max_chars)))


def one_line_blocks(source: str) -> str:
    """Markup in which only paragraphs have a line break: white space is one blank, as browsers show it.

    Preformatted text (`pre`) keeps the breaks between its paragraphs and headings if it is prose, as in RFCs and mail
    archives. Other preformatted text becomes a paragraph of one line: a block of code is one extract, not one for each line,
    and none with the text around it.
    """
    parts = _PREFORMATTED.split(source)
    for i, part in enumerate(parts):
        if not i % 2:
            parts[i] = _SPACE.sub(" ", part)
        elif is_prose(part):
            parts[i] = "\n".join(paragraphs(part))
        else:
            parts[i] = _PRE.sub("<p>", _SPACE.sub(" ", part), count=1)
            parts[i + 1] = _TEXT_BEHIND.sub("</p><p>", parts[i + 1], count=1)
            parts[i + 1] = _END_OF_PRE.sub("</p>", parts[i + 1], count=1)
    return "".join(parts)


def decode(page: Fetched) -> str:
    """The page's characters, decoded by its byte order mark, the server's charset, the page's own, or UTF-8, in this order.

    Bytes that cannot be decoded become U+FFFD.
    """
    for mark, charset in _MARKS:
        if page.body.startswith(mark):
            return page.body[len(mark) :].decode(charset, "replace")
    own = _META_CHARSET.search(page.body[:_META_WITHIN])
    for name in (page.charset, own[1].decode() if own else ""):
        name = name.strip().lower()
        name = _READ_AS.get(name, name)
        if _CHARSETS.fullmatch(name):
            try:
                return page.body.decode(name, "replace")
            except LookupError:
                continue
    return page.body.decode("utf-8", "replace")


def _visible_text(source: str) -> str:
    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=False)
    try:
        tree = html.document_fromstring(source.encode("utf-8", "replace"), parser=parser)
    except (ParserError, XMLSyntaxError):  # an empty document
        return ""
    for element in list(tree.iter(*_HIDDEN)):
        element.drop_tree()
    return "\n".join(str(part) for part in tree.itertext())
