"""The attributes of things: the label on a page, the phrase in a question, and invented values.

Real entities have their own values; `invent` makes similar-looking values for the training world.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from mmsearch_jax.miniworld import names


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One kind of fact. A page shows the line "`label`: value"; a question asks for "the `phrase` of ...".

    `invent` makes a value for the thing with the given name.
    """

    key: str
    label: str
    phrase: str
    invent: Callable[[np.random.Generator, str], str]


# Real values often begin like the name (Kenya: Kenyan shillings; Guatemala: Guatemala City) or repeat themselves
# (Bilady, Bilady, Bilady). A policy that was not trained on such values makes mistakes when it copies them.


def _currency(rng: np.random.Generator, name: str) -> str:
    kind = rng.random()
    if kind < 0.45:
        noun = f"{_demonym(rng, name)} {names.word(rng, 1, 2)}"
    elif kind < 0.8:
        noun = names.word(rng, 1, 3)
    else:
        noun = f"{names.word(rng, 2, 4)} {names.word(rng, 1, 2)}"
    return f"{noun} ({names.code(rng, 3)})"


def _demonym(rng: np.random.Generator, name: str) -> str:
    stem = name if rng.random() < 0.5 else name.rstrip("aeiouy")
    return stem + ("n", "an", "ian", "ese", "i", "ish", "")[int(rng.integers(7))]


def _capital(rng: np.random.Generator, name: str) -> str:
    kind = rng.random()
    if kind < 0.08:
        return f"{name} City"
    return name if kind < 0.12 else names.proper_name(rng)


def _anthem(rng: np.random.Generator, name: str) -> str:
    title, kind = names.title(rng), rng.random()
    if kind < 0.1:
        return f"{title.split()[-1]} {name}"
    if kind < 0.2:
        return ", ".join([title.split()[0]] * int(rng.integers(2, 4)))
    if kind < 0.5:
        again = f"{title.split()[0]} " if rng.random() < 0.3 else ""
        return f"{title} ({again}{names.title(rng)})"
    return title


def _symbol(rng: np.random.Generator, name: str) -> str:
    return ", ".join(names.phrase(rng) for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))))


def _internet_code(rng: np.random.Generator, name: str) -> str:
    letters = [c for c in name.lower() if c.isascii() and c.isalpha()]
    if len(letters) < 2 or rng.random() < 0.3:
        return f".{names.code(rng, 2).lower()}"
    return f".{letters[0]}{letters[int(rng.integers(1, len(letters)))]}"


def _place(rng: np.random.Generator, name: str) -> str:
    return names.proper_name(rng)


def _date(rng: np.random.Generator, name: str) -> str:
    return names.date(rng)


def _phrase(rng: np.random.Generator, name: str) -> str:
    return names.phrase(rng)


def _measure(unit: str, low: int, high: int) -> Callable[[np.random.Generator, str], str]:
    return lambda rng, name: f"{names.number(rng, low, high)} {unit}".strip()


LAND_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("capital", "Capital", "capital", _capital),
    Attribute("currency", "Currency", "currency", _currency),
    Attribute("population", "Population", "population", _measure("", 4, 9)),
    Attribute("area", "Area", "area", _measure("sq km", 2, 7)),
    Attribute("highest_point", "Highest point", "highest point", _place),
    Attribute("anthem", "National anthem", "national anthem", _anthem),
    Attribute("symbol", "National symbol", "national symbol", _symbol),
    Attribute("internet_code", "Internet code", "internet code", _internet_code),
    Attribute("independence", "Independence", "date of independence", _date),
    Attribute("longest_river", "Longest river", "longest river", _place),
)
"""The attributes of lands (countries) in both worlds; a land's page may lack any of them."""

INVENTED_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("largest_lake", "Largest lake", "largest lake", _place),
    Attribute("main_port", "Main port", "main port", _place),
    Attribute("old_name", "Old name", "old name", _place),
    Attribute("founder", "Founder", "founder", _place),
    Attribute("patron", "Patron saint", "patron saint", lambda rng, name: f"Saint {names.proper_name(rng)}"),
    Attribute("bird", "National bird", "national bird", _phrase),
    Attribute("dish", "National dish", "national dish", _phrase),
    Attribute("coast", "Coastline", "coastline", _measure("km", 2, 5)),
    Attribute("railways", "Railways", "railways", _measure("km", 2, 5)),
    Attribute("holiday", "National holiday", "national holiday", _date),
)
"""Attributes that exist only in the training world: the policy must learn to read labels, not a fixed list of them."""

MONUMENT_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("country", "Country", "country", _place),
    Attribute("city", "City", "city", _place),
    Attribute("built", "Built", "date of building", lambda rng, name: str(rng.integers(400, 2010))),
)

ANIMAL_ATTRIBUTES: tuple[Attribute, ...] = (Attribute("range", "Range", "range", _place),)

ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.key: attribute
    for attribute in LAND_ATTRIBUTES + INVENTED_ATTRIBUTES + MONUMENT_ATTRIBUTES + ANIMAL_ATTRIBUTES
}


def invent_land_facts(rng: np.random.Generator, name: str, missing: float = 0.15) -> dict[str, str]:
    """Facts of an invented land: each shared attribute with probability 1 - `missing`, and some training-only ones."""
    shared = [a for a in LAND_ATTRIBUTES if rng.random() >= missing]
    extra = rng.choice(len(INVENTED_ATTRIBUTES), size=4, replace=False)
    chosen = shared + [INVENTED_ATTRIBUTES[i] for i in extra]
    rng.shuffle(chosen)  # pyright: ignore[reportArgumentType]  (a list is shuffled in place)
    return {attribute.key: attribute.invent(rng, name) for attribute in chosen}
