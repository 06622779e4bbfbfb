"""The evaluation world: real flags, photographs and facts, from the small copies in `assets/miniworld`.

The index and the scenes show a flag in different artworks; each scene crops and compresses photographs anew.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.miniworld import pages
from mmsearch_jax.miniworld.entities import Entity, read_entities

ASSETS = bundled("assets/miniworld")


class RealWorld:
    """A world in a folder of entities, pictures and backgrounds.

    Raises:
      DataError: the entities or the backgrounds are missing from the folder.
    """

    def __init__(self, folder: Path = ASSETS):
        self._folder = folder
        self.entities: Sequence[Entity] = read_entities(folder)
        self._backgrounds = sorted((folder / "backgrounds").glob("*.jpg"))
        if not self._backgrounds:
            raise DataError(
                f"no backgrounds/*.jpg in {folder}: rebuild it with python -m mmsearch_jax.miniworld.build_assets"
            )
        self._open = functools.lru_cache(maxsize=1024)(self._read)

    def picture(self, entity: Entity, artwork: str) -> Image.Image:
        """The entity's picture in the "index" or the "scene" artwork, RGB."""
        return self._open(entity.index_image if artwork == "index" else entity.scene_image)

    def background(self, rng: np.random.Generator) -> Image.Image:
        """One of the background photographs, RGB."""
        return self._open(str(self._backgrounds[int(rng.integers(len(self._backgrounds)))]))

    def noise_pages(self) -> list[pages.WorldPage]:
        """Empty: the pages of animals, and of lands without questions, serve as noise."""
        return []

    def _read(self, file: str) -> Image.Image:
        try:
            return Image.open(self._folder / file).convert("RGB")
        except OSError as error:
            raise DataError(f"cannot read the picture {self._folder / file}: {error}") from error
