"""Builds an index folder from a folder of pictures: titles and thumbnails in SQLite, vectors of the embedded embedder.

As in `ImageIndex`, a picture has several insets; here vectors and thumbnails are on disk, not in memory.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tqdm
from PIL import Image

from mmsearch_jax.core.errors import ConfigError, DataError, ImageError
from mmsearch_jax.core.pictures import picture_size
from tools_server.corpora import passage_store, vectors
from tools_server.corpora.manifest import PICTURES, Manifest, write_manifest
from tools_server.corpora.passage_store import create_database
from tools_server.corpora.staging import described, staged
from tools_server.image_index import (
    INDEX_PARTS,
    IndexedPicture,
    encode_thumbnail,
    index_vectors,
    open_picture,
    stream_pictures,
)
from tools_server.inert import drops_address

FILE = "pictures.sqlite"
REJECTED_FILE = "rejected.jsonl"
_SCHEMA = "CREATE TABLE pictures(number INTEGER PRIMARY KEY, title TEXT, description TEXT, url TEXT, file TEXT, thumbnail BLOB)"
_AHEAD = 64
"""Pictures that are read ahead."""
_LARGE_PIXELS = 8_000_000
"""Pictures above this are unpacked one at a time."""
_ONE_LARGE = threading.Lock()


def build_picture_index(
    out: Path, source: Path, exact_up_to: int = vectors.EXACT_UP_TO, num_threads: int = 2, show_progress: bool = True
) -> tuple[Manifest, int]:
    """Builds an index of pictures at `out`; returns its manifest, and how many pictures could not be read.

    Those are listed in `rejected.jsonl`, each with its reason.

    Args:
      source: a file of JSON lines (file, title, description, url), a folder with such an `images.jsonl`, or a folder of
        pictures, whose file names become their titles.
      exact_up_to: more vectors than this (six for a picture) are searched through a graph.

    Raises:
      DataError: `out` exists, the source cannot be used, or no picture of it can be read.
      ConfigError: usearch is not installed, a value is out of range.
    """
    if exact_up_to < 0 or num_threads < 1:
        raise ConfigError(
            f"exact_up_to is {exact_up_to}, must be 0 or more; num_threads is {num_threads}, must be above 0"
        )
    library = vectors.version()  # first, so that a missing one is named before anything is read or written
    listing = _listing(source)
    recipe = {
        "sources": [described(listing)],
        "exact_up_to": exact_up_to,
        "versions": {"pictures": passage_store.VERSION, "vectors": library},
    }
    with staged(out, recipe) as stage:
        done = stage.once(
            "pictures",
            [FILE, vectors.FLAT_FILE, REJECTED_FILE],
            lambda: _write(stage.folder, _pictures(listing), num_threads, show_progress),
        )
        count = done["count"] * len(INDEX_PARTS)
        info = vectors.VectorInfo(count, done["dim"], count <= exact_up_to)
        vectors.finish(stage, info, show_progress)
        return write_manifest(stage, PICTURES, done["count"], info, done.get("dropped", 0)), done["rejected"]


def _listing(source: Path) -> Path:
    """The file that lists the pictures, or the folder that holds them."""
    path = source / "images.jsonl" if (source / "images.jsonl").is_file() else source
    if not path.exists():
        raise DataError(f"no pictures at {source}: name a folder of them, or a file of JSON lines with file and title")
    return path


def _pictures(listing: Path) -> Iterator[IndexedPicture]:
    if listing.is_file():
        return stream_pictures(listing)
    known = Image.registered_extensions()
    files = sorted(path for path in listing.rglob("*") if path.suffix.lower() in known and path.is_file())
    return (IndexedPicture(file, file.stem.replace("_", " "), "", "") for file in files)


def _write(folder: Path, pictures: Iterator[IndexedPicture], num_threads: int, show_progress: bool) -> dict[str, Any]:
    database, flat = create_database(folder / FILE, _SCHEMA), None
    count = rejected = dropped = 0
    with (
        ThreadPoolExecutor(num_threads) as pool,
        (folder / REJECTED_FILE).open("w", encoding="utf-8") as set_aside,
        tqdm.tqdm(desc="pictures", unit="picture", disable=not show_progress) as bar,
    ):
        for picture, made in _ahead(pool, pictures):
            bar.update()
            try:
                found, thumbnail = made.result()
            except DataError as error:
                set_aside.write(
                    json.dumps({"file": str(picture.file), "reason": str(error)}, ensure_ascii=False) + "\n"
                )
                rejected += 1
                continue
            flat = flat or vectors.FlatVectors(folder, found.shape[1])
            flat.add(found)
            database.execute(
                "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?)",
                (count, picture.title, picture.description, picture.url, str(picture.file), thumbnail),
            )
            count += 1
            dropped += drops_address(picture.url)
    if flat is None:
        raise DataError(f"no picture could be read ({rejected} tried): see {folder / REJECTED_FILE}")
    database.execute("CREATE INDEX by_file ON pictures(file)")
    database.execute("COMMIT")
    database.close()
    flat.close()
    return {"count": count, "rejected": rejected, "dropped": dropped, "dim": flat.dim}


def _ahead(
    pool: ThreadPoolExecutor, pictures: Iterable[IndexedPicture]
) -> Iterator[tuple[IndexedPicture, Future[tuple[np.ndarray, bytes]]]]:
    """Pictures in order, with a bounded number of them in progress."""
    pictures = iter(pictures)
    waiting = collections.deque(
        (picture, pool.submit(_read, picture)) for picture in itertools.islice(pictures, _AHEAD)
    )
    while waiting:
        yield waiting.popleft()
        waiting.extend((picture, pool.submit(_read, picture)) for picture in itertools.islice(pictures, 1))


def _read(picture: IndexedPicture) -> tuple[np.ndarray, bytes]:
    with _ONE_LARGE if _is_large(picture.file) else contextlib.nullcontext():
        image = open_picture(picture.file)
        return index_vectors(image), encode_thumbnail(image)


def _is_large(file: Path) -> bool:
    try:
        width, height = picture_size(file, str(file))
    except ImageError:  # reading it gives the reason
        return False
    return width * height > _LARGE_PIXELS
