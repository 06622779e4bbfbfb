"""Images of running episodes: decoded once for equal bytes, encoded once for one state of the vision tower."""

from __future__ import annotations

import collections
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmsearch_jax.data.image_processing import ImageProcessor, ProcessedImage, load_image
from mmsearch_jax.data.vision_inputs import PatchRows, VisionInputs, pack_images
from mmsearch_jax.models.config import VisionConfig
from mmsearch_jax.rollout.sequence import EngineConfig, PreparedImage


class ImageCache:
    """Holds the latest images by the hash of their bytes.

    Args:
      processor: of the checkpoint.
      vision: the tower's config.
      config: sizes of the engine.
      encode: from packed patches to features [N, D] under the current weights.
    """

    def __init__(
        self,
        processor: ImageProcessor,
        vision: VisionConfig,
        config: EngineConfig,
        encode: Callable[[VisionInputs], Any],
    ):
        self._processor, self._vision, self._config, self._encode = processor, vision, config, encode
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
            # Another thread may have been first: equal bytes are to give the same object.
            image = self._images.setdefault(key, PreparedImage(key, processed, grid, num_tokens))
            while len(self._images) > self._config.image_cache:
                self._images.popitem(last=False)
        return image

    def forget_features(self) -> None:
        """The vision tower has changed: every image is to be encoded again when it is next needed."""
        with self._lock:
            for image in self._images.values():
                image.features = None

    def encode_missing(self, images: Iterable[PreparedImage]) -> int:
        """Encodes those that have no features yet, in as few calls as the buckets allow; returns how many."""
        missing = list({image.key: image for image in images if image.features is None}.values())
        rows = max(self._config.extend_rows)
        for start in range(0, len(missing), rows):
            batch = missing[start : start + rows]
            longest = max(image.processed.patches.shape[0] for image in batch)
            vision, offsets = self._pack(
                [image.processed for image in batch], _row_patches(longest, self._config.patch_buckets)
            )
            features = np.asarray(self._encode(vision), np.float32)
            for image, offset in zip(batch, offsets, strict=True):
                image.features = features[offset : offset + image.num_tokens]
        return len(missing)

    def shapes(self) -> Iterator[VisionInputs]:
        """An input of every shape that images of this processor can make."""
        smallest = self._processor(Image.new("RGB", (28, 28)))
        largest = self._processor.max_pixels // self._vision.patch_size**2
        merged = self._vision.spatial_merge_size**2
        counts = range(len(smallest.patches), largest + merged, merged)
        for row_patches in sorted({_row_patches(count, self._config.patch_buckets) for count in counts}):
            for num_rows in sorted(self._config.extend_rows):
                yield pack_images([smallest], row_patches, num_rows)[0]

    def _pack(self, images: Sequence[ProcessedImage], row_patches: int) -> tuple[VisionInputs, list[int]]:
        sizes = [len(image.patches) for image in images]
        enough = [rows for rows in self._config.extend_rows if PatchRows(rows, row_patches).place(sizes)]
        return pack_images(
            images, row_patches=row_patches, num_rows=min(enough),
            merge_size=self._vision.spatial_merge_size,
            window_patches=self._vision.window_size // self._vision.patch_size,
        )  # fmt: skip


def _row_patches(patches: int, buckets: Sequence[int]) -> int:
    """The smallest bucket; beyond them, steps of a quarter of a power of two, so that images of many sizes share few
    programs."""
    fitting = [size for size in buckets if size >= patches]
    if fitting:
        return min(fitting)
    step = max(64, 1 << max(0, (patches - 1).bit_length() - 2))
    return -(-patches // step) * step
