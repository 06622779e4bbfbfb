"""The web pages of a world, which the text search finds.

Each entity has its own page. Lands also have topic pages that repeat some of their facts (near-duplicates), and a world
has pages about other things (noise). This code makes the pages of both worlds; only the facts differ.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmsearch_jax.miniworld import facts
from mmsearch_jax.miniworld.entities import Entity

_TOPICS = {
    "Geography of {}": ("area", "highest_point", "longest_river", "largest_lake", "coast"),
    "Economy of {}": ("currency", "main_port", "railways", "dish"),
    "History of {}": ("independence", "old_name", "founder", "holiday"),
}


@dataclasses.dataclass(frozen=True)
class WorldPage:
    """One page: `text` is lines of "Label: value" and prose."""

    id: str
    title: str
    url: str
    text: str


def entity_pages(entity: Entity) -> list[WorldPage]:
    """The page about the entity, and the topic pages if it is a land."""
    lines = fact_lines(entity.facts)
    pages = [_page(entity.name, [*lines, entity.text] if entity.text else lines)]
    if entity.kind == "flag":
        for form, keys in _TOPICS.items():
            shown = {key: entity.facts[key] for key in keys if key in entity.facts}
            if len(shown) >= 2:
                pages.append(_page(form.format(entity.name), fact_lines(shown)))
    return pages


def fact_lines(known: dict[str, str]) -> list[str]:
    """The facts as a page shows them: one "Label: value" per fact."""
    return [f"{facts.ATTRIBUTES[key].label}: {value}" for key, value in known.items()]


def write_pages(pages: Iterable[WorldPage], path: Path) -> None:
    """Writes `pages.jsonl`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(dataclasses.asdict(page), ensure_ascii=False) + "\n" for page in pages)


def prose_page(title: str, text: str) -> WorldPage:
    """A page of running text."""
    return _page(title, [text])


def _page(title: str, lines: Sequence[str]) -> WorldPage:
    slug = "".join(c if c.isalnum() else "_" for c in title)
    return WorldPage(id=slug, title=title, url=f"https://miniworld.example/{slug}", text="\n".join(lines))
