"""What a published set is: the files that its authors give, its splits, and how a record of them becomes a row.

The files lie in one folder of the user's (nothing is downloaded); each module beside this one knows one set or a family.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.data.rows import Row

IMAGE_ENDINGS = (".jpg", ".JPEG", ".jpeg", ".png", ".webp", ".JPG", ".PNG")
Files = Sequence[list[Path]]
"""For each of a set's `files`, what was found, in the order of the names."""


class PublishedSet(NamedTuple):
    """How a set is read.

    Attributes:
      splits: as its authors call them.
      files: what a split needs; each is a tuple of alternatives, glob patterns with "{split}" relative to the folder.
      records: from the files that were found, the split and the folder to records, in order.
      to_row: from a record, its number (from 1 on) and the folder to a row; raises `DataError` for one that cannot be used.
      images: where the set's images lie in the folder, in words.
    """

    splits: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    records: Callable[[Files, str, Path], Iterator[Any]]
    to_row: Callable[[Any, int, Path], Row]
    images: str


def find_files(published: PublishedSet, name: str, folder: Path, split: str | None) -> Files:
    """The files of a split.

    Raises:
      DataError: no such folder, no such split, or a file of it is missing; names what is looked for.
    """
    if split not in published.splits:
        given = f"unknown split '{split}'" if split else "no split given"
        raise DataError(f"{name}: {given}, expected one of {', '.join(published.splits)}")
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}: give the folder of {name}'s files")
    found = []
    for alternatives in published.files:
        patterns = [pattern.format(split=split) for pattern in alternatives]
        matching = next((paths for pattern in patterns if (paths := sorted(folder.glob(pattern)))), None)
        if matching is None:
            raise DataError(f"{folder} has no {' or '.join(patterns)}: put the files of {name} there (docs/data.md)")
        found.append(matching)
    return found


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      DataError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): fetch it again") from error


def find_image(folder: Path, roots: Sequence[str], name: str) -> str:
    """The file of an image, by its name without ending, in one of `roots` below `folder` or in a folder within it.

    Raises:
      ImageError: there is none.
    """
    for place in _image_folders(folder, tuple(roots)):
        for ending in IMAGE_ENDINGS:
            if (path := place / f"{name}{ending}").is_file():
                return str(path)
    raise ImageError(f"image: no file for '{name}' in {' or '.join(roots)} below {folder}")


@functools.lru_cache(maxsize=8)
def _image_folders(folder: Path, roots: tuple[str, ...]) -> list[Path]:
    places = [folder / root for root in roots if (folder / root).is_dir()]
    return [place for root in places for place in (root, *sorted(p for p in root.iterdir() if p.is_dir()))]
