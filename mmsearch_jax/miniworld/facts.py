"""What is known of a thing: the attributes, how a page spells each, how a question asks for it, and invented values.

Real entities bring their own values; `invent` makes values of the same look for the training world.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from mmsearch_jax.miniworld import names


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One kind of fact. A page shows it as the line "`label`: value"; a question asks for "the `phrase` of ..."."""

    key: str
    label: str
    phrase: str
    invent: Callable[[np.random.Generator], str]


def _currency(rng: np.random.Generator) -> str:
    noun = names.word(rng, 1, 3) if rng.random() < 0.7 else f"{names.word(rng, 2, 4)} {names.word(rng, 1, 2)}"
    return f"{noun} ({names.code(rng, 3)})"


def _anthem(rng: np.random.Generator) -> str:
    title = names.title(rng)
    return f"{title} ({names.title(rng)})" if rng.random() < 0.25 else title


def _symbol(rng: np.random.Generator) -> str:
    return ", ".join(names.phrase(rng) for _ in range(1 + int(rng.random() < 0.3)))


def _place(rng: np.random.Generator) -> str:
    return names.proper_name(rng)


def _measure(unit: str, low: int, high: int) -> Callable[[np.random.Generator], str]:
    return lambda rng: f"{names.number(rng, low, high)} {unit}"


LAND_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("capital", "Capital", "capital", _place),
    Attribute("currency", "Currency", "currency", _currency),
    Attribute("population", "Population", "population", lambda rng: names.number(rng, 4, 9)),
    Attribute("area", "Area", "area", _measure("sq km", 2, 7)),
    Attribute("highest_point", "Highest point", "highest point", _place),
    Attribute("anthem", "National anthem", "national anthem", _anthem),
    Attribute("symbol", "National symbol", "national symbol", _symbol),
    Attribute("internet_code", "Internet code", "internet code", lambda rng: f".{names.code(rng, 2).lower()}"),
    Attribute("independence", "Independence", "date of independence", names.date),
    Attribute("longest_river", "Longest river", "longest river", _place),
)
"""The attributes that lands (countries) of both worlds have; any one of them may be missing from a land's page."""

INVENTED_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("largest_lake", "Largest lake", "largest lake", _place),
    Attribute("main_port", "Main port", "main port", _place),
    Attribute("old_name", "Old name", "old name", _place),
    Attribute("founder", "Founder", "founder", _place),
    Attribute("patron", "Patron saint", "patron saint", lambda rng: f"Saint {names.proper_name(rng)}"),
    Attribute("bird", "National bird", "national bird", names.phrase),
    Attribute("dish", "National dish", "national dish", names.phrase),
    Attribute("coast", "Coastline", "coastline", _measure("km", 2, 5)),
    Attribute("railways", "Railways", "railways", _measure("km", 2, 5)),
    Attribute("holiday", "National holiday", "national holiday", names.date),
)
"""Attributes of the training world alone: the policy must learn to read a label, not a fixed list of them."""

MONUMENT_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("country", "Country", "country", _place),
    Attribute("city", "City", "city", _place),
    Attribute("built", "Built", "date of building", lambda rng: str(rng.integers(400, 2010))),
)

ANIMAL_ATTRIBUTES: tuple[Attribute, ...] = (Attribute("range", "Range", "range", _place),)

ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.key: attribute
    for attribute in LAND_ATTRIBUTES + INVENTED_ATTRIBUTES + MONUMENT_ATTRIBUTES + ANIMAL_ATTRIBUTES
}


def invent_land_facts(rng: np.random.Generator, missing: float = 0.15) -> dict[str, str]:
    """Facts of one invented land: each shared attribute with probability 1 - missing, and a few invented ones."""
    shared = [a for a in LAND_ATTRIBUTES if rng.random() >= missing]
    extra = rng.choice(len(INVENTED_ATTRIBUTES), size=4, replace=False)
    chosen = shared + [INVENTED_ATTRIBUTES[i] for i in extra]
    rng.shuffle(chosen)  # pyright: ignore[reportArgumentType]  (a list is shuffled in place)
    return {attribute.key: attribute.invent(rng) for attribute in chosen}
