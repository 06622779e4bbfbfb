"""Nearest-neighbour search over an index of pictures on disk; gives the same answers as `ImageIndex` in memory."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path
from typing import Any

from PIL import Image

from tools_server.corpora.manifest import PICTURES, read_manifest
from tools_server.corpora.passage_store import Connections
from tools_server.corpora.picture_build import FILE
from tools_server.corpora.vectors import VectorInfo, Vectors
from tools_server.failures import SearchFailure
from tools_server.image_index import INDEX_PARTS, IndexedPicture, query_vectors


class PictureIndex:
    """Opens an index that `picture_build.build_picture_index` made. Safe to use from several threads.

    Raises:
      DataError: no index, or a damaged one.
      ConfigError: usearch is not installed.
    """

    def __init__(self, folder: Path):
        self.manifest = read_manifest(folder, PICTURES)
        assert self.manifest.vectors is not None
        self._folder, self._connections = folder, Connections(folder / FILE)
        self._vectors = Vectors(folder, VectorInfo(**self.manifest.vectors))

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def dropped_addresses(self) -> int:
        """Number of pictures whose address results do not show."""
        return self.manifest.dropped_addresses

    def search(self, image: Image.Image, top_k: int) -> list[tuple[IndexedPicture, float]]:
        """The pictures most like the image, best first, each with its similarity (cosine). Blocks."""
        # Each picture can take this many ranks with its insets, so the best `top_k` pictures are among these.
        numbers, cosines = self._vectors.search(query_vectors(image), top_k * len(INDEX_PARTS))
        best: dict[int, float] = {}
        for number, cosine in zip((numbers // len(INDEX_PARTS)).flat, cosines.flat, strict=True):
            best[int(number)] = max(float(cosine), best.get(int(number), -1.0))
        ranked = sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))[:top_k]
        return [(self._picture(number), cosine) for number, cosine in ranked]

    def thumbnail(self, picture: IndexedPicture) -> str:
        """A small JPEG of the picture in base64."""
        row = self._row("SELECT thumbnail FROM pictures WHERE file = ? LIMIT 1", str(picture.file))
        return base64.b64encode(row[0]).decode()

    def close(self) -> None:
        """Closes the files."""
        self._connections.close()

    def _picture(self, number: int) -> IndexedPicture:
        file, *fields = self._row("SELECT file, title, description, url FROM pictures WHERE number = ?", number)
        return IndexedPicture(Path(file), *fields)

    def _row(self, query: str, key: int | str) -> tuple[Any, ...]:
        try:
            row = self._connections.get().execute(query, (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._damaged(error) from error
        if row is None:
            raise self._damaged(f"there is no picture {key}")
        return row

    def _damaged(self, why: object) -> SearchFailure:
        return SearchFailure("internal", f"the index at {self._folder} cannot be read ({why}): build it again")
