"""The entity: one thing of a world (a land with its flag, a monument, an animal), and its JSON-lines file.

Defines an entity's format on disk and checks records; knows nothing of drawing or questions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError

KINDS = ("flag", "monument", "animal")


@dataclasses.dataclass(frozen=True)
class Entity:
    """One thing of a world.

    Attributes:
      id: unique within a world, e.g. "flag-fr". Never shown to policy or server.
      kind: one of `KINDS`.
      name: title of the page about it, e.g. "France", "Eiffel Tower".
      title: title of its image-search hit, e.g. "Flag of France".
      description: one or two sentences that an image search shows below the title.
      facts: attribute key -> value, spelt as on the page.
      place: name of the land that a monument stands in; None for other kinds.
      alias_of: group of entities with equal artwork; an entity with unique artwork is its own group.
      index_image, scene_image: paths of the two artworks, relative to the world's folder; empty if they are drawn.
      source, licence, author: origin of the pictures.
      text: paragraphs of prose about the entity; may be empty.
    """

    id: str
    kind: str
    name: str
    title: str
    description: str = ""
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    place: str | None = None
    alias_of: str = ""
    index_image: str = ""
    scene_image: str = ""
    source: str = ""
    licence: str = ""
    author: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        if not self.alias_of:
            object.__setattr__(self, "alias_of", self.id)


def read_entities(path: str | Path) -> list[Entity]:
    """Reads `entities.jsonl` (or the folder that holds it).

    Raises:
      DataError: the file is missing, or a line is not an entity. The message names file, line and field.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "entities.jsonl"
    if not path.is_file():
        raise DataError(f"no entities at {path}: give an entities.jsonl file or a folder that holds one")
    entities: list[Entity] = []
    seen: set[str] = set()
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            entity = _parse(line, f"{path}:{number}")
            if entity.id in seen:
                raise DataError(f"{path}:{number}: id {entity.id!r} occurs twice: ids must be unique")
            seen.add(entity.id)
            entities.append(entity)
    return entities


def write_entities(entities: Iterable[Entity], path: str | Path) -> None:
    """Writes entities as JSON lines; creates the folder if it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(dataclasses.asdict(e), ensure_ascii=False) + "\n" for e in entities)


_FIELDS = {field.name for field in dataclasses.fields(Entity)}
_REQUIRED = ("id", "kind", "name", "title")


def _parse(line: str, where: str) -> Entity:
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}): each line must be one entity") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a {type(record).__name__}, not an object: each line must be one entity")
    for key in _REQUIRED:
        if not isinstance(record.get(key), str) or not record[key]:
            raise DataError(f"{where}: field {key!r} must be a string that is not empty")
    if unknown := sorted(record.keys() - _FIELDS):
        raise DataError(f"{where}: unknown field {unknown[0]!r}: known are {', '.join(sorted(_FIELDS))}")
    if record["kind"] not in KINDS:
        raise DataError(f"{where}: kind {record['kind']!r} is not one of {', '.join(KINDS)}")
    facts = record.get("facts", {})
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise DataError(f"{where}: field 'facts' must map attributes to strings")
    for key, value in record.items():
        if key != "facts" and not isinstance(value, str) and not (key == "place" and value is None):
            raise DataError(f"{where}: field {key!r} must be a string, not {type(value).__name__}")
    return Entity(**record)
