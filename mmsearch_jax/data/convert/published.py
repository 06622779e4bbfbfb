"""Definition of a published set: the files that its authors publish, its splits, and how its records become rows.

The files are in one folder that the user supplies (nothing is downloaded). Each set or family of sets has its own module here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.data.formats import json_text
from mmsearch_jax.data.rows import Row

IMAGE_ENDINGS = (".jpg", ".JPEG", ".jpeg", ".png", ".webp", ".JPG", ".PNG")
Files = Sequence[list[Path]]
"""The files found for each entry of a set's `files`, sorted by name."""


class PublishedSet(NamedTuple):
    """How to read a set.

    Attributes:
      splits: names of the splits in the set.
      files: files of a split; each is a tuple of alternatives, glob patterns with "{split}" relative to the folder.
      records: from the files found, the split and the folder to records, in order.
      to_row: from a record, its number (from 1) and the folder to a row; raises `DataError` for an unusable one.
      images: location of the set's images in the folder, in words.
    """

    splits: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    records: Callable[[Files, str, Path], Iterator[Any]]
    to_row: Callable[[Any, int, Path], Row]
    images: str


def find_files(published: PublishedSet, name: str, folder: Path, split: str | None) -> Files:
    """The files of a split.

    Raises:
      DataError: no such folder, no such split, or a file of it is missing; the message names the expected files.
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
      DataError: it is not JSON.
    """
    try:
        return json_text.loads(path.read_bytes())
    except DataError as error:
        raise DataError(f"{path} is {error}: download it again") from error


def find_image(folder: Path, roots: Sequence[str], name: str) -> str:
    """The file of an image, by its name without extension, in one of `roots` below `folder` or in a folder within it.

    Raises:
      ImageError: there is no such file.
    """
    for place in _image_folders(folder, tuple(roots)):
        for ending in IMAGE_ENDINGS:
            # Unlike `Path.is_file`, it is false for names that no file can have.
            if os.path.isfile(path := place / f"{name}{ending}"):
                return str(path)
    raise ImageError(f"image: no file for {name[:80]!r} in {' or '.join(roots)} below {folder}")


@functools.lru_cache(maxsize=8)
def _image_folders(folder: Path, roots: tuple[str, ...]) -> list[Path]:
    places = [folder / root for root in roots if (folder / root).is_dir()]
    return [place for root in places for place in (root, *sorted(p for p in root.iterdir() if p.is_dir()))]
