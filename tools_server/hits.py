"""A page of a corpus, and a hit of a text search: what every text index returns."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Page:
    """One page: a title, an address, and text made of lines ("Capital: Paris") and prose. `id` is its corpus's, if any."""

    title: str
    url: str
    text: str
    id: str = ""


@dataclasses.dataclass(frozen=True)
class Hit:
    """A page or passage that was found, complete, and its score (higher is better)."""

    page: Page
    score: float
