"""Image files to uint8 patches, without torch: the host's part of image processing; the vision tower does the rest.

Together they equal transformers' Qwen2-VL image processor (Pillow backend): bicubic resize to multiples of patch x merge
size within a pixel budget, patches in blocks of merge x merge neighbours, then (`models/vision.py`) scaling, normalisation
and a copy for every frame of a temporal patch. A batch of bytes without these copies takes an eighth of the memory.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

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


# What the patches are computed with: another value means another picture for the vision tower.
_FIXED: dict[str, tuple[Any, ...]] = {
    "do_resize": (True,),
    "do_rescale": (True,),
    "do_normalize": (True,),
    "do_convert_rgb": (True,),
    "do_center_crop": (False,),
    "do_pad": (False,),
    "resample": (Image.Resampling.BICUBIC.value,),
}
_RESCALE = 1 / 255
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
          CheckpointError: no such file, not a JSON object, a size that is none, or steps that differ from those computed here.
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
        _refuse_other_pictures(record, path)
        size = record.get("size") or {}
        if not isinstance(size, dict) or (size and not size.keys() & {*_BOUNDS}):
            raise CheckpointError(f"{path} has size {size}: expected {' and '.join(_BOUNDS)}")

        def size_of(name: str, default: int, *values: Any) -> int:
            value = next((value for value in values if value is not None), default)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(f"{path} has {name} {value!r}, expected a whole number above 0")
            return value

        made = cls(
            size_of("min_pixels", cls.min_pixels, record.get("min_pixels"), size.get("shortest_edge")),
            size_of("max_pixels", cls.max_pixels, record.get("max_pixels"), size.get("longest_edge")),
            **{
                name: size_of(name, getattr(cls, name), record.get(name))
                for name in ("patch_size", "temporal_patch_size", "merge_size")
            },
        )
        if made.min_pixels > made.max_pixels:
            raise CheckpointError(f"{path} has min_pixels {made.min_pixels} above max_pixels {made.max_pixels}")
        return made

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


_BOUNDS = ("shortest_edge", "longest_edge")


def _refuse_other_pictures(record: dict[str, Any], path: Path) -> None:
    """Raises CheckpointError if the file asks for a step that is not computed here, or leaves one out that is."""
    kind = record.get("image_processor_type") or "Qwen2VLImageProcessor"
    if not str(kind).startswith("Qwen2"):
        raise CheckpointError(f"{path} describes a {kind}: only Qwen2VLImageProcessor is supported")
    for name, known in (("image_mean", MEAN), ("image_std", STD), ("rescale_factor", _RESCALE)):
        found = record.get(name)
        try:
            same = found is None or np.allclose(np.asarray(found, np.float64), known, rtol=1e-4)
        except (TypeError, ValueError):
            same = False
        if not same:
            shown = list(known) if isinstance(known, tuple) else known
            raise CheckpointError(f"{path} has {name} {found}: the vision tower supports only {shown}")
    for name, sound in _FIXED.items():
        if record.get(name) is not None and record[name] not in sound:
            raise CheckpointError(
                f"{path} sets {name} to {record[name]}, which is not computed here: only {sound[0]} is"
            )
