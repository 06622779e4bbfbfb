"""The training world: invented lands, monuments and animals, with drawn pictures and invented facts.

(seed, number) determines everything, so a world needs no storage. It shares no entity with the evaluation world.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmsearch_jax.miniworld import drawing, facts, names, pages, prose
from mmsearch_jax.miniworld.entities import Entity

_FORMS = {
    "monument": ("{} Tower", "{} Palace", "{} Temple", "Castle of {}", "{} Bridge", "{} Gate", "{}"),
    "animal": ("{} bear", "{} deer", "Lesser {}", "{} cat", "{}"),
}
_DRAW = {"flag": drawing.draw_emblem, "monument": drawing.draw_monument, "animal": drawing.draw_animal}


class GeneratedWorld:
    """A world of `num_lands` lands, `num_lands` monuments and half that number of animals.

    Attributes:
      entities: lands first, then monuments, then animals.
    """

    def __init__(self, num_lands: int, seed: int):
        self._seed = seed
        rng = np.random.default_rng([seed, 0])
        taken: set[str] = set()
        lands = [_land(rng, taken, i) for i in range(num_lands)]
        monuments = [_monument(rng, taken, lands[int(rng.integers(num_lands))], i) for i in range(num_lands)]
        animals = [_animal(rng, taken, i) for i in range(num_lands // 2)]
        self.entities: Sequence[Entity] = [*lands, *monuments, *animals]
        self._numbers = {entity.id: i for i, entity in enumerate(self.entities)}
        self._draw = functools.lru_cache(maxsize=4096)(self._draw_both)

    def picture(self, entity: Entity, artwork: str) -> Image.Image:
        """The entity's drawing in the "index" or the "scene" artwork, RGB."""
        index, scene = self._draw(entity.id)
        return index if artwork == "index" else scene

    def background(self, rng: np.random.Generator) -> Image.Image:
        """A drawn background, RGB."""
        return drawing.draw_background(rng)

    def noise_pages(self) -> list[pages.WorldPage]:
        """Pages of prose about invented things."""
        rng = np.random.default_rng([self._seed, 2])
        return [_noise_page(rng) for _ in range(len(self.entities) // 2)]

    def _draw_both(self, entity_id: str) -> tuple[Image.Image, Image.Image]:
        number = self._numbers[entity_id]
        return _DRAW[self.entities[number].kind](np.random.default_rng([self._seed, 1, number]))


def _land(rng: np.random.Generator, taken: set[str], number: int) -> Entity:
    name = _new_name(rng, taken, "{}")
    description = f"The flag of {name}: {names.phrase(rng)} and {names.phrase(rng)}, with {names.phrase(rng)}."
    known = facts.invent_land_facts(rng, name)
    return _entity(f"flag-{number:04d}", "flag", name, f"Flag of {name}", description, known, text=_history(rng, taken))


def _monument(rng: np.random.Generator, taken: set[str], land: Entity, number: int) -> Entity:
    name = _new_name(rng, taken, _pick(rng, _FORMS["monument"]))
    known = {"country": land.name}
    for attribute in facts.MONUMENT_ATTRIBUTES[1:]:
        if rng.random() < 0.6:
            known[attribute.key] = attribute.invent(rng, name)
    order = rng.permutation(len(known))
    known = {list(known)[i]: list(known.values())[i] for i in order}
    return _entity(f"monument-{number:04d}", "monument", name, name, prose.about(rng, name), known, land.name)


def _animal(rng: np.random.Generator, taken: set[str], number: int) -> Entity:
    name = _new_name(rng, taken, _pick(rng, _FORMS["animal"]))
    return _entity(
        f"animal-{number:04d}", "animal", name, name, prose.about(rng, name), {"range": names.proper_name(rng)}
    )


def _entity(
    entity_id: str,
    kind: str,
    name: str,
    title: str,
    description: str,
    known: dict[str, str],
    place: str | None = None,
    text: str = "",
) -> Entity:
    return Entity(
        id=entity_id,
        kind=kind,
        name=name,
        title=title,
        description=description,
        facts=known,
        place=place,
        alias_of=entity_id,
        index_image="",
        scene_image="",
        source="generated",
        licence="Apache-2.0",
        text=text,
    )


def _history(rng: np.random.Generator, neighbours: set[str]) -> str:
    """Prose about a land. It names other lands, so that searches for those also find this page."""
    named = sorted(neighbours)
    other = _pick(rng, named).title() if named else names.proper_name(rng)
    return f"{prose.history(rng, other)} {prose.plain(rng)} at {names.proper_name(rng)}."


def _noise_page(rng: np.random.Generator) -> pages.WorldPage:
    title = names.title(rng)
    text = "\n".join(f"{prose.plain(rng)} in {names.proper_name(rng)}." for _ in range(4))
    return pages.prose_page(title, text)


def _new_name(rng: np.random.Generator, taken: set[str], form: str) -> str:
    while True:
        name = form.format(names.proper_name(rng))
        if name.lower() not in taken:
            taken.add(name.lower())
            return name


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
