"""Pictures of a page: reduced in size, each embedded once, within a budget."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.images.processing import load_image

IMAGE_SIDE = 384
_QUALITY = 66


class Pictures:
    """Embeds pictures until the budgets are used up.

    Args:
      image_bytes: budget for the questions' images, as JPEG.
      thumbnail_bytes: budget for the results' thumbnails.
    """

    def __init__(self, image_bytes: int, thumbnail_bytes: int):
        self._left, self._left_thumbnails = image_bytes, thumbnail_bytes
        self._index: dict[str, int | None] = {}
        self._thumbnail_index: dict[bytes, int | None] = {}
        self.images: list[tuple[int, int, str]] = []
        """Width and height of each original, and the reduced JPEG in base64."""
        self.thumbnails: list[str] = []
        self.left_out = self.missing = self.thumbnails_left_out = 0

    def image(self, source: Any, folder: Path) -> int | None:
        """Index of a row's image; None if it can no longer be read, or if the budget is used up.

        Args:
          source: path (relative to `folder` or to the current directory) or URL.
        """
        key = str(source)
        if key not in self._index:
            self._index[key] = self._embed(source, folder)
        return self._index[key]

    def _embed(self, source: Any, folder: Path) -> int | None:
        if self._left <= 0:
            self.left_out += 1
            return None
        try:
            # A report must not access the network.
            if not isinstance(source, str) or source.startswith(("http://", "https://")):
                raise ImageError("not a file")
            opened = load_image(str(folder / source) if (folder / source).is_file() else source)
        except (ImageError, OSError):
            self.missing += 1
            return None
        width, height = opened.size
        opened.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
        buffer = io.BytesIO()
        opened.save(buffer, "JPEG", quality=_QUALITY)
        self._left -= len(buffer.getvalue())
        self.images.append((width, height, base64.b64encode(buffer.getvalue()).decode()))
        return len(self.images) - 1

    def thumbnail(self, encoded: str | None) -> int | None:
        """Index of a result's thumbnail; None if it is missing, is not base64, or exceeds the budget."""
        if not encoded:
            return None
        key = hashlib.sha256(encoded.encode()).digest()
        if key not in self._thumbnail_index:
            self._thumbnail_index[key] = self._embed_thumbnail(encoded)
        return self._thumbnail_index[key]

    def _embed_thumbnail(self, encoded: str) -> int | None:
        try:
            size = len(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            return None
        if size > self._left_thumbnails:
            self.thumbnails_left_out += 1
            return None
        self._left_thumbnails -= size
        self.thumbnails.append(encoded)
        return len(self.thumbnails) - 1
