"""The results of a perfect search for a question of the real mini-world: the picture's title and the pages' lines."""

from __future__ import annotations

from collections.abc import Mapping

from mmsearch_jax.core.search_api import SearchResult
from mmsearch_jax.data.rows import Row
from mmsearch_jax.miniworld import facts, pages
from mmsearch_jax.miniworld.entities import Entity

_SEARCHED = ("land", "monument")


def gold_results(row: Row, entities: Mapping[str, Entity]) -> tuple[tuple[SearchResult, ...], tuple[SearchResult, ...]]:
    """The results of image search and of text search; both are empty if the image alone answers the question.

    Args:
      entities: the entities of the row's world, by id.
    """
    if row.meta.get("form") not in _SEARCHED or row.target is None:
        return (), ()
    shown = entities[row.placements[row.target].entity]
    titles = (SearchResult(shown.title, shown.description),)
    land = shown
    found = []
    if shown.place:
        found.append(_page(shown, "country"))
        land = next(entity for entity in entities.values() if entity.kind == "flag" and entity.name == shown.place)
    return titles, (*found, _page(land, row.meta["attribute"]))


def _page(entity: Entity, key: str) -> SearchResult:
    assert key in facts.ATTRIBUTES
    return SearchResult(entity.name, "; ".join(pages.fact_lines({key: entity.facts[key]})))
