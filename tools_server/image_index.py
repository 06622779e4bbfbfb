"""Nearest-neighbour search over the corpus's pictures.

Each picture is indexed with several insets (crops), so that a query box that cuts into a picture, or leaves a margin around it,
still finds a neighbour with the same framing. Independent of HTTP.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.core.pictures import decode_picture
from tools_server.inert import drops_address
from tools_server.toy_vision import embedding

Part = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of a picture's sides."""

INDEX_PARTS: tuple[Part, ...] = (
    (0.0, 0.0, 1.0, 1.0),
    (0.05, 0.05, 0.95, 0.95),
    (0.07, 0.0, 1.0, 1.0),
    (0.0, 0.0, 0.93, 1.0),
    (0.0, 0.07, 1.0, 1.0),
    (0.0, 0.0, 1.0, 0.93),
)
QUERY_PARTS: tuple[Part, ...] = (
    (0.0, 0.0, 1.0, 1.0),
    (0.04, 0.04, 0.96, 0.96),
    (0.08, 0.08, 0.92, 0.92),
    (0.08, 0.0, 1.0, 1.0),
    (0.0, 0.0, 0.92, 1.0),
    (0.0, 0.08, 1.0, 1.0),
    (0.0, 0.0, 1.0, 0.92),
)
THUMBNAIL_SIDE = 96


@dataclasses.dataclass(frozen=True)
class IndexedPicture:
    """One picture of the corpus."""

    file: Path
    title: str
    description: str
    url: str


class ImageIndex:
    """The pictures of a corpus, embedded.

    Args:
      pictures: the pictures.
      num_threads: pictures that are decoded at the same time.

    Raises:
      DataError: a picture cannot be read; names it.
    """

    def __init__(self, pictures: Sequence[IndexedPicture], num_threads: int = 2):
        self.pictures = list(pictures)
        with ThreadPoolExecutor(num_threads) as pool:
            vectors = list(pool.map(_embed_file, (picture.file for picture in self.pictures)))
        self._vectors = np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32)
        self._thumbnail = functools.lru_cache(maxsize=1024)(_encode_file)

    @classmethod
    def from_corpus(cls, folder: Path) -> ImageIndex:
        """Reads `images.jsonl` and the files it names.

        Raises:
          DataError: the list or a picture is missing or damaged.
        """
        return cls(read_pictures(folder))

    @property
    def dropped_addresses(self) -> int:
        """Number of pictures whose address results do not show."""
        return sum(drops_address(picture.url) for picture in self.pictures)

    def search(self, image: Image.Image, top_k: int) -> list[tuple[IndexedPicture, float]]:
        """The pictures most like the image, best first, each with its similarity (cosine, at most 1)."""
        if not self.pictures:
            return []
        alike = (query_vectors(image) @ self._vectors.T).reshape(len(QUERY_PARTS), len(self.pictures), len(INDEX_PARTS))
        scores = alike.max((0, 2))
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [(self.pictures[i], float(scores[i])) for i in best]

    def thumbnail(self, picture: IndexedPicture) -> str:
        """A small JPEG of the picture in base64."""
        return self._thumbnail(picture.file)


def read_pictures(folder: Path) -> list[IndexedPicture]:
    """The pictures listed in a corpus's `images.jsonl`; none if there is no such file.

    Raises:
      DataError: a line is not a picture; names file, line and field.
    """
    path = folder / "images.jsonl"
    return list(stream_pictures(path)) if path.is_file() else []


def stream_pictures(path: Path) -> Iterator[IndexedPicture]:
    """The pictures listed in a file of JSON lines (file, title, description, url); files are relative to its folder.

    Raises:
      DataError: a line is not a picture; names file, line and field.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parse(line, f"{path}:{number}", path.parent)


def _parse(line: str, where: str, folder: Path) -> IndexedPicture:
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}): each line must be one picture") from error
    for key in ("file", "title"):
        if not isinstance(record, dict) or not isinstance(record.get(key), str) or not record[key]:
            raise DataError(f"{where}: field {key!r} must be a string that is not empty")
    return IndexedPicture(
        folder / record["file"], record["title"], str(record.get("description") or ""), str(record.get("url") or "")
    )


def index_vectors(image: Image.Image) -> np.ndarray:
    """The vectors of an indexed picture: float32 [len(INDEX_PARTS), F], of unit length."""
    return embedding.embed(np.stack([embedding.thumbnail(image, part) for part in INDEX_PARTS]))


def query_vectors(image: Image.Image) -> np.ndarray:
    """The vectors of a query picture: float32 [len(QUERY_PARTS), F], of unit length."""
    return embedding.embed(np.stack([embedding.thumbnail(image, part) for part in QUERY_PARTS]))


def open_picture(file: Path) -> Image.Image:
    """The picture as a query's picture is decoded; a large JPEG at reduced size.

    Raises:
      DataError: it cannot be read; names it.
    """
    try:
        return decode_picture(file, str(file), draft=(256, 192))
    except ImageError as error:
        raise DataError(f"cannot read the picture {file}: {error}; or remove it from images.jsonl") from error


def encode_thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a picture. The picture is shrunk in place."""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def _embed_file(file: Path) -> np.ndarray:
    return index_vectors(open_picture(file))


def _encode_file(file: Path) -> str:
    return base64.b64encode(encode_thumbnail(open_picture(file))).decode()
