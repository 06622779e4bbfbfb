"""`index.json`: what an index folder contains and how it was made. It is written last, so a folder with one is complete."""

from __future__ import annotations

import dataclasses
import datetime
import json
import uuid
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from tools_server.corpora.staging import Stage
from tools_server.corpora.vectors import VectorInfo

FILE = "index.json"
FORMAT = 1
"""Increased whenever older versions could not read what a newer one wrote."""
PASSAGES, PICTURES = "passages", "pictures"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """How an index was made.

    Attributes:
      kind: `PASSAGES` or `PICTURES`.
      count: of passages or pictures.
      id: different for every build.
      built: date and time, UTC.
      recipe: the build's arguments and source files, and `addresses_dropped`, if there are any: see `dropped_addresses`.
      versions: of the libraries that wrote the files.
      vectors: see `vectors.VectorInfo`; None if there are none.
      files: bytes of every file, by its path in the folder.
      format: of the folder.
    """

    kind: str
    count: int
    id: str
    built: str
    recipe: dict[str, Any]
    versions: dict[str, str]
    vectors: dict[str, Any] | None
    files: dict[str, int]
    format: int = FORMAT

    @property
    def dropped_addresses(self) -> int:
        """Pages or pictures whose address results do not show, because it is none of the web."""
        return self.recipe.get("addresses_dropped", 0)


def is_index(folder: Path) -> bool:
    """Whether a folder is an index."""
    return (folder / FILE).is_file()


def write_manifest(stage: Stage, kind: str, count: int, vectors: VectorInfo | None, dropped: int = 0) -> Manifest:
    """Writes the manifest of a build whose files are complete. `dropped`: see `Manifest.dropped_addresses`."""
    (stage.folder / FILE).unlink(missing_ok=True)  # left by a build that was killed just before its end
    recipe = {name: value for name, value in stage.recipe.items() if name != "versions"}
    if dropped:
        recipe["addresses_dropped"] = dropped
    manifest = Manifest(
        kind,
        count,
        uuid.uuid4().hex,
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        recipe,
        stage.recipe["versions"],
        dataclasses.asdict(vectors) if vectors is not None else None,
        stage.file_sizes(),
    )
    text = json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False)
    (stage.folder / FILE).write_text(text + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path, kind: str = "") -> Manifest:
    """The manifest of an index of this kind (any, if ""), after checking that all its files exist with their full length.

    Raises:
      DataError: no index, one of another kind or of a newer program, or a damaged one; says what to do.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"no index at {folder}: name a folder that `mmsearch index build` made")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        newer = record["format"] > FORMAT
        manifest = None if newer else Manifest(**record)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}): build the index again") from error
    if manifest is None:
        raise DataError(
            f"{folder} has format {record['format']}, this program reads up to {FORMAT}: update mmsearch-jax"
        )
    if kind and manifest.kind != kind:
        raise DataError(f"{folder} is an index of {manifest.kind}, not of {kind}: name one of {kind}")
    for name, size in manifest.files.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
            raise DataError(f"the index at {folder} is damaged: {name} {what}. Build it again, or copy it again")
    return manifest
