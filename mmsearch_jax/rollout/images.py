"""Images of running episodes: decoded once for equal bytes, encoded once for one state of the vision tower."""

from __future__ import annotations

import collections
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from mmsearch_jax.images.processing import ImageProcessor, load_image
from mmsearch_jax.images.vision_inputs import PatchRows, VisionInputs, pack_images
from mmsearch_jax.models.config import VisionConfig
from mmsearch_jax.rollout.sequence import PreparedImage
from mmsearch_jax.settings.rollout import EngineConfig

_FULL_ENOUGH = 0.75
"""Once this share of a call's rows is filled, a call with more rows is preferred over one with fuller rows."""


class ImageCache:
    """Keeps the latest images by the hash of their bytes.

    Args:
      processor: of the checkpoint.
      vision: the tower's config.
      config: sizes of the engine.
    """

    def __init__(self, processor: ImageProcessor, vision: VisionConfig, config: EngineConfig):
        self._processor, self._vision, self._config = processor, vision, config
        self._images: collections.OrderedDict[str, PreparedImage] = collections.OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, encoded: bytes) -> PreparedImage:
        """Decodes and cuts an image into patches. May be called from any thread.

        Raises:
          ImageError: not an image.
        """
        key = hashlib.sha256(encoded).hexdigest()
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        processed = self._processor(load_image(encoded))
        grid = (int(processed.grid[0]), int(processed.grid[1]), int(processed.grid[2]))
        num_tokens = grid[0] * grid[1] * grid[2] // self._vision.spatial_merge_size**2
        with self._lock:
            # If another thread was first, use its object: equal bytes must give the same object.
            image = self._images.setdefault(key, PreparedImage(key, processed, grid, num_tokens))
            while len(self._images) > self._config.image_cache:
                self._images.popitem(last=False)
        return image

    def forget_features(self) -> None:
        """Drops all features because the vision tower has changed: images are encoded again when needed."""
        with self._lock:
            for image in self._images.values():
                image.features = None

    def encode_missing(self, images: Iterable[PreparedImage], encode: Callable[[VisionInputs], Any]) -> int:
        """Encodes the images without features and returns their number. Small images fill rows that larger ones leave partly
        empty.

        Args:
          encode: maps packed patches to features [N, D] under the current weights.
        """
        # Equal bytes give several objects if the cache dropped them in between: encode one, and give the features to all.
        missing: dict[str, list[PreparedImage]] = {}
        for image in images:
            if image.features is None:
                missing.setdefault(image.key, []).append(image)
        waiting = sorted((same[0] for same in missing.values()), key=_patches, reverse=True)
        while waiting:
            batch, rows, row_patches = self._next_call(waiting)
            vision, numbers = pack_images(
                [image.processed for image in batch], row_patches, rows, layout=self._vision.layout
            )
            features = jax.device_get(encode(vision)).astype(np.float32)
            for image, own in zip(batch, numbers, strict=True):
                for same in missing[image.key]:
                    same.features = features[own]
            waiting = [image for image in waiting if image.features is None]
        return len(missing)

    def shapes(self) -> Iterator[VisionInputs]:
        """An input of every shape that this processor's images can have."""
        smallest = self._processor(Image.new("RGB", (28, 28)))
        largest = self._processor.max_pixels // self._vision.patch_size**2
        merged = self._vision.spatial_merge_size**2
        counts = range(len(smallest.patches), largest + merged, merged)
        for row_patches in sorted({_row_patches(count, self._config.patch_buckets) for count in counts}):
            for num_rows in sorted(self._config.extend_rows):
                yield pack_images([smallest], row_patches, num_rows, layout=self._vision.layout)[0]

    def _next_call(self, waiting: Sequence[PreparedImage]) -> tuple[list[PreparedImage], int, int]:
        """Images of the next call, its rows and their length: as many rows as are full enough, else the single fullest.

        Args:
          waiting: sorted, the largest first; it determines the length of the rows.
        """
        row_patches, choices = _row_patches(_patches(waiting[0]), self._config.patch_buckets), []
        for rows in self._config.extend_rows:
            room = PatchRows(rows, row_patches)
            batch = [image for image in waiting if room.place([_patches(image)])]
            full = sum(map(_patches, batch)) / (rows * row_patches)
            choices.append((min(full, _FULL_ENOUGH), rows, batch))
        _, rows, batch = max(choices, key=lambda choice: choice[:2])
        return batch, rows, row_patches


def _patches(image: PreparedImage) -> int:
    return len(image.processed.patches)


def _row_patches(patches: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that fits. Above the buckets, sizes in steps of a quarter of a power of two, so that images of many
    sizes share few programs."""
    fitting = [size for size in buckets if size >= patches]
    if fitting:
        return min(fitting)
    step = max(64, 1 << max(0, (patches - 1).bit_length() - 2))
    return -(-patches // step) * step
