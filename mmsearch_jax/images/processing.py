"""Image files to uint8 patches, without torch: the host's part of image processing; the vision tower does the rest.

Together they equal transformers' Qwen2-VL image processor (Pillow backend): bicubic resize to multiples of patch x merge
size within a pixel budget, patches in blocks of merge x merge neighbours, then (`models/vision.py`) scaling, normalisation
and a copy for every frame of a temporal patch. A batch of bytes without these copies takes an eighth of the memory.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmsearch_jax.core.errors import CheckpointError, ImageError
from mmsearch_jax.core.json_files import json_object
from mmsearch_jax.core.pictures import decode_picture
from mmsearch_jax.images import image_urls, pixels

MAX_ASPECT_RATIO = 200
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation by which the vision tower normalises red, green and blue: those of CLIP, as in all Qwen2.5-VL models."""


class ProcessedImage(NamedTuple):
    """`patches` uint8 [P, channels * height * width of a patch]; `grid` (t, h, w) in patches, P = t * h * w."""

    patches: UInt8[np.ndarray, "P bytes"]
    grid: tuple[int, int, int]


def load_image(source: str | Path | bytes | Image.Image) -> Image.Image:
    """Reads an image as RGB: first frame, turned upright by its EXIF tag, transparency over white.

    Args:
      source: path, URL (http, https or data), encoded bytes, or an image.

    Raises:
      ImageError: the image is missing, cannot be fetched, is not an image, is damaged, or is too large to decode safely.
    """
    name = "the image" if isinstance(source, bytes | Image.Image) else image_urls.shown(str(source))
    if isinstance(source, str) and source.startswith(image_urls.SCHEMES):
        source = image_urls.read_url(source)
    return decode_picture(source, name)


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width in pixels: multiples of `factor`, about the same aspect ratio, area within the bounds.

    Raises:
      ImageError: a side is zero, or the sides differ by more than `MAX_ASPECT_RATIO` times.
    """
    if not height or not width:
        raise ImageError(f"an image of {width} x {height} has no pixels: give one that is not empty")
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ImageError(
            f"an image of {width} x {height} is too narrow: crop it to a ratio of at most {MAX_ASPECT_RATIO}"
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


_COPY_IT = "copy it from the base model's folder"


@dataclasses.dataclass(frozen=True)
class ImageProcessor:
    """Converts images to patches as the module's docstring says. Pixel bounds are areas after resizing.

    `temporal_patch_size` is only stored for the file: the vision tower has its own.
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ImageProcessor:
        """Reads a checkpoint folder: `processor_config.json` if it describes an image processor (transformers 5), else
        `preprocessor_config.json`.

        Raises:
          CheckpointError: no such file, not a JSON object, or a normalisation that differs from the vision tower's.
        """
        whole, path = Path(folder) / "processor_config.json", Path(folder) / "preprocessor_config.json"
        record = json_object(whole, CheckpointError, _COPY_IT).get("image_processor") if whole.is_file() else None
        if record is not None:
            path = whole
        elif path.is_file():
            record = json_object(path, CheckpointError, _COPY_IT)
        else:
            raise CheckpointError(
                f"no preprocessor_config.json in {folder}, and no processor_config.json with an image_processor: copy it from "
                "the base model's folder"
            )
        if not isinstance(record, dict):
            raise CheckpointError(
                f"{path}: image_processor is not a JSON object: copy the file from the base model's folder"
            )
        for name, known in (("image_mean", MEAN), ("image_std", STD)):
            if not np.allclose(record.get(name, known), known):
                raise CheckpointError(f"{path} has {name} {record[name]}: the vision tower supports only {list(known)}")
        size = record.get("size") or {}
        return cls(
            min_pixels=record.get("min_pixels") or size.get("shortest_edge") or cls.min_pixels,
            max_pixels=record.get("max_pixels") or size.get("longest_edge") or cls.max_pixels,
            patch_size=record.get("patch_size", cls.patch_size),
            temporal_patch_size=record.get("temporal_patch_size", cls.temporal_patch_size),
            merge_size=record.get("merge_size", cls.merge_size),
        )

    def to_hf(self) -> dict:
        """The `preprocessor_config.json` from which transformers builds the same processor."""
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
            "image_mean": list(MEAN),
            "image_std": list(STD),
        }

    def num_tokens(self, grid: tuple[int, int, int]) -> int:
        """Number of placeholder tokens of an image with this grid."""
        return grid[0] * grid[1] * grid[2] // self.merge_size**2

    def grid(self, width: int, height: int) -> tuple[int, int, int]:
        """The grid in patches of an image of this size in pixels.

        Raises:
          ImageError: the image is empty or too narrow.
        """
        factor = self.patch_size * self.merge_size
        new_height, new_width = smart_resize(height, width, factor, self.min_pixels, self.max_pixels)
        return 1, new_height // self.patch_size, new_width // self.patch_size

    def __call__(self, image: Image.Image) -> ProcessedImage:
        """Resizes an RGB image and cuts it into patches.

        Raises:
          ImageError: the image is empty or too narrow.
        """
        frames, rows, columns = self.grid(image.width, image.height)
        resized = pixels.resize(np.asarray(image), rows * self.patch_size, columns * self.patch_size)
        return ProcessedImage(pixels.cut(resized, self.patch_size, self.merge_size), (frames, rows, columns))
