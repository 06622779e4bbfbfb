"""Writes the mini-world to disk: a generated training world and a real evaluation world.

A world is a folder. `corpus/` is all that the tools server reads: pages, and pictures in their index artwork. The rows'
folders hold the scenes (pictures in their scene artwork, over backgrounds) with questions and gold answers. The same
code makes both worlds, from disjoint entities.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mmsearch_jax.data.rows import Placement, Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.miniworld import facts, pages, questions, scenes
from mmsearch_jax.miniworld.clutter import cluttered
from mmsearch_jax.miniworld.entities import Entity
from mmsearch_jax.miniworld.sight import Scene

QUESTION_KEYS = tuple(attribute.key for attribute in facts.LAND_ATTRIBUTES)
SEARCH_KINDS = ("whole_image", "crop", "two_hop")


class World(Protocol):
    """Entities and their pictures."""

    @property
    def entities(self) -> Sequence[Entity]:
        """The entities that questions may ask about."""
        ...

    def picture(self, entity: Entity, artwork: str) -> Image.Image:
        """The entity's picture in the "index" or the "scene" artwork, RGB."""
        ...

    def background(self, rng: np.random.Generator) -> Image.Image:
        """A background to compose a scene on, RGB."""
        ...

    def noise_pages(self) -> list[pages.WorldPage]:
        """Pages about things that no question asks for."""
        ...


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of a world: some of its entities, with the world's pictures and backgrounds."""

    world: World
    entities: Sequence[Entity]

    def picture(self, entity: Entity, artwork: str) -> Image.Image:
        """See `World.picture`."""
        return self.world.picture(entity, artwork)

    def background(self, rng: np.random.Generator) -> Image.Image:
        """See `World.background`."""
        return self.world.background(rng)

    def noise_pages(self) -> list[pages.WorldPage]:
        """See `World.noise_pages`."""
        return self.world.noise_pages()


def split_world(world: World, num_lands: int) -> tuple[Region, Region]:
    """The first `num_lands` lands with their monuments and a proportional share of the animals; and the rest."""
    lands = [entity for entity in world.entities if entity.kind == "flag"]
    first = {land.name for land in lands[:num_lands]}
    animals = [entity.id for entity in world.entities if entity.kind == "animal"]
    tame = set(animals[: len(animals) * num_lands // len(lands)])

    def inside(entity: Entity) -> bool:
        return entity.id in tame if entity.kind == "animal" else (entity.place or entity.name) in first

    parts = [[e for e in world.entities if inside(e) == wanted] for wanted in (True, False)]
    return Region(world, parts[0]), Region(world, parts[1])


def write_corpus(world: World, folder: Path) -> None:
    """Writes what the tools server reads: pages.jsonl, images.jsonl and the index pictures."""
    everything = [page for entity in world.entities for page in pages.entity_pages(entity)]
    pages.write_pages([*everything, *world.noise_pages()], folder / "pages.jsonl")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "images.jsonl").open("w", encoding="utf-8") as out:
        for number, entity in enumerate(world.entities):
            # Files are numbered, because a name would reveal what the picture shows.
            file = f"images/{number:04d}.png"
            world.picture(entity, "index").save(folder / file, compress_level=1)
            record = {
                "id": f"{number:04d}",
                "file": file,
                "title": entity.title,
                "description": entity.description,
                "url": f"https://miniworld.example/pictures/{number:04d}",
            }
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_questions(world: World, folder: Path, num_rows: int, seed: int, free_share: float = 0.5) -> list[Row]:
    """Composes scenes, asks one question about each, and writes `rows.jsonl` with its images.

    `free_share` of the rows are search-free; the rest is split evenly over the three search-required kinds. A row's
    scene depends only on the seed and the row's number.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(num_rows):
        rng = np.random.default_rng([seed, number])
        required = int((number + 1) * (1 - free_share)) > int(number * (1 - free_share))
        turn = int(number * (1 - free_share))
        kind = SEARCH_KINDS[turn % len(SEARCH_KINDS)] if required else "visual"
        image, row = _ROW_MAKERS[kind](world, rng)
        path = (folder / "images" / f"{number:05d}.jpg").resolve()
        image.save(path, quality=90)
        rows.append(dataclasses.replace(row, id=f"{folder.parent.name}-{number:05d}", image=str(path)))
    write_rows(rows, folder / "rows.jsonl")
    return rows


def compose_scene(world: World, rng: np.random.Generator, clutter: float = 0.0) -> Scene:
    """A scene with one to four entities, about half of them flags; sometimes one entity fills the image.

    `clutter` is the share of scenes whose background shows things that are not pictures of the scene.
    """
    if rng.random() < 0.15:
        member = _one(rng, world.entities)
        image, box = scenes.full_bleed(world.picture(member, "scene"), rng)
        return Scene(image, [member.kind], [box])
    members = _sample(rng, world.entities, int(rng.integers(1, 5)), flags=float(rng.choice([0.35, 0.6])))
    background = None
    if rng.random() < clutter:
        background = cluttered(rng, world.background(rng), lambda: world.picture(_one(rng, world.entities), "index"))
    image, boxes = mixed_scene(world, rng, members, background)
    return Scene(image, [member.kind for member in members], boxes)


def mixed_scene(
    world: World, rng: np.random.Generator, members: Sequence[Entity], background: Image.Image | None = None
) -> tuple[Image.Image, list[scenes.Box]]:
    """The entities' scene pictures at different places and sizes over a background, by default the world's; and their boxes."""
    pictures = [world.picture(entity, "scene") for entity in members]
    return scenes.compose(pictures, background or world.background(rng), rng)


def _visual_row(world: World, rng: np.random.Generator) -> tuple[Image.Image, Row]:
    members = _sample(rng, world.entities, int(rng.integers(1, 5)), flags=float(rng.choice([0.35, 0.6])))
    image, boxes = mixed_scene(world, rng, members)
    options = questions.visual(rng, image, [entity.kind for entity in members], boxes)
    forms = sorted({option.form for option in options})
    form = forms[int(rng.integers(len(forms)))]
    return image, _row("visual", next(o for o in options if o.form == form), members, boxes)


def _whole_image_row(world: World, rng: np.random.Generator) -> tuple[Image.Image, Row]:
    land = _one(rng, _lands(world))
    image, box = scenes.full_bleed(world.picture(land, "scene"), rng)
    question = _with_twins(world, land, questions.whole_image(rng, land, QUESTION_KEYS))
    return image, _row("whole_image", question, [land], [box])


def _crop_row(world: World, rng: np.random.Generator) -> tuple[Image.Image, Row]:
    land = _one(rng, _lands(world))
    image, members, boxes, target, expression = _scene_around(world, rng, land, int(rng.integers(2, 5)))
    question = _with_twins(world, land, questions.crop(rng, land, target, expression, QUESTION_KEYS))
    return image, _row("crop", question, members, boxes)


def _two_hop_row(world: World, rng: np.random.Generator) -> tuple[Image.Image, Row]:
    by_name = {land.name: land for land in _lands(world)}
    monument = _one(rng, [e for e in world.entities if e.kind == "monument" and e.place in by_name])
    land = by_name[monument.place or ""]
    if rng.random() < 0.5:
        image, box = scenes.full_bleed(world.picture(monument, "scene"), rng)
        return image, _row("two_hop", questions.two_hop(rng, land, 0, "", QUESTION_KEYS), [monument], [box])
    image, members, boxes, target, expression = _scene_around(world, rng, monument, int(rng.integers(2, 4)))
    question = questions.two_hop(rng, land, target, expression, QUESTION_KEYS)
    return image, _row("two_hop", question, members, boxes)


_ROW_MAKERS = {"visual": _visual_row, "whole_image": _whole_image_row, "crop": _crop_row, "two_hop": _two_hop_row}


def _scene_around(world: World, rng: np.random.Generator, wanted: Entity, count: int):
    """A scene with `count` entities; scenes are drawn until a spatial phrase identifies the wanted one."""
    while True:
        others = _sample(rng, [e for e in world.entities if e.alias_of != wanted.alias_of], count - 1, flags=0.6)
        target = int(rng.integers(count))
        members = [*others[:target], wanted, *others[target:]]
        image, boxes = mixed_scene(world, rng, members)
        phrase = scenes.spatial_phrase(boxes, target)
        if phrase:
            return image, members, boxes, target, f"the {wanted.kind} {phrase}"


def _with_twins(world: World, land: Entity, question: questions.Question) -> questions.Question:
    """Adds the answers of lands with the same flag to the right ones: no picture tells Chad from Romania."""
    key = question.attribute
    twins = [e for e in world.entities if e.alias_of == land.alias_of and e.id != land.id and key in e.facts]
    more = tuple(answer for twin in twins for answer in questions.answers_for(key, twin.facts[key]))
    return dataclasses.replace(question, answers=question.answers + more)


def _row(kind: str, question: questions.Question, members: Sequence[Entity], boxes: Sequence[scenes.Box]) -> Row:
    placements = tuple(Placement(entity.id, box) for entity, box in zip(members, boxes, strict=True))
    meta = {"form": question.form, "attribute": question.attribute, "expression": question.expression}
    return Row("", "", question.text, question.answers, kind, kind != "visual", placements, question.target, meta)


def _lands(world: World) -> list[Entity]:
    return [e for e in world.entities if e.kind == "flag" and any(key in e.facts for key in QUESTION_KEYS)]


def _sample(rng: np.random.Generator, entities: Sequence[Entity], count: int, flags: float) -> list[Entity]:
    """Different entities, each a flag with probability `flags`."""
    pools = {True: [e for e in entities if e.kind == "flag"], False: [e for e in entities if e.kind != "flag"]}
    chosen: list[Entity] = []
    while len(chosen) < count:
        entity = _one(rng, pools[bool(rng.random() < flags)])
        if entity not in chosen:
            chosen.append(entity)
    return chosen


def _one(rng: np.random.Generator, entities: Sequence[Entity]) -> Entity:
    return entities[int(rng.integers(len(entities)))]
