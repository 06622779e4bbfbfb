"""Packs processed images into rows of patches, with the segments and positions that the vision tower needs.

Pure host-side NumPy; also where a sequence's image placeholders are matched with its images. A window or an image is a run
of patches with the same segment id; 0 is padding and attends to nothing.
Legend: R rows, P patches in a row, m merge size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmsearch_jax.data.image_processing import ProcessedImage
from mmsearch_jax.errors import DataError

MERGE_SIZE, WINDOW_PATCHES = 2, 8
"""Qwen2.5-VL's: 2 x 2 patches a token, windows of 8 x 8 patches (112 pixels)."""


class VisionInputs(NamedTuple):
    """Rows of packed images.

    Attributes:
      patches: uint8 [R, P, channels * height * width of a patch]; `models/vision.py` normalises them.
      positions: int32 [R, P, 2], row and column of each patch in its image.
      window_segment_ids: int32 [R, P], 1, 2, ... per window.
      image_segment_ids: int32 [R, P], 1, 2, ... per frame of an image.
    """

    patches: Any
    positions: Any
    window_segment_ids: Any
    image_segment_ids: Any


def image_runs(token_ids: Sequence[int] | np.ndarray, image_token_id: int, sizes: Sequence[int]) -> list[int]:
    """Where each image's placeholders begin.

    Every image needs a run of placeholders of its own, of exactly its size: two images are always parted by other tokens
    (Qwen's markup puts <|vision_end|><|vision_start|> between them).

    Args:
      token_ids: int [L].
      sizes: tokens of each image, in order.

    Raises:
      DataError: runs and images do not match, in number or in length; names the token.
    """
    is_image = np.concatenate([[False], np.asarray(token_ids) == image_token_id, [False]])
    edges = np.flatnonzero(is_image[1:] != is_image[:-1])
    starts, lengths = edges[::2].tolist(), (edges[1::2] - edges[::2]).tolist()
    for number, (start, length, size) in enumerate(zip(starts, lengths, sizes, strict=False)):
        if length != size:
            raise DataError(
                f"image {number} has {size} tokens, but the run of image placeholders at token {start} has {length}: "
                "write one placeholder a merged patch, and other tokens between two images"
            )
    if len(starts) > len(sizes):
        raise DataError(
            f"the image placeholders at token {starts[len(sizes)]} have no image: {len(starts)} runs of placeholders, "
            f"{len(sizes)} images"
        )
    if len(sizes) > len(starts):
        raise DataError(
            f"image {len(starts)} has no placeholders among the {len(token_ids)} tokens: {len(starts)} runs of "
            f"placeholders, {len(sizes)} images"
        )
    return starts


def pack_images(
    images: Sequence[ProcessedImage],
    row_patches: int | None = None,
    num_rows: int | None = None,
    *,
    merge_size: int = MERGE_SIZE,
    window_patches: int = WINDOW_PATCHES,
) -> tuple[VisionInputs, list[int]]:
    """One image a row, padded to equal length.

    Args:
      row_patches: length of a row; by default the longest image's.
      num_rows: number of rows (the rest is padding); by default one an image.

    Returns:
      The inputs, and for each image where its tokens begin in the feature list [R * P / m^2].

    Raises:
      ValueError: an image is longer than a row, or there are more images than rows.
      DataError: an image's patches are not those of its grid.
    """
    for number, image in enumerate(images):
        t, h, w = image.grid
        if len(image.patches) != t * h * w or h % merge_size or w % merge_size:
            raise DataError(
                f"image {number} has {len(image.patches)} patches and the grid {image.grid}: a grid's product is its number of "
                f"patches, its sides are multiples of {merge_size}"
            )
    longest = max(len(image.patches) for image in images)
    row_patches, num_rows = row_patches or longest, num_rows or len(images)
    if longest > row_patches or len(images) > num_rows or row_patches % merge_size**2:
        raise ValueError(f"{len(images)} images of up to {longest} patches do not fit {num_rows} rows of {row_patches}")
    patches = np.zeros((num_rows, row_patches, images[0].patches.shape[1]), np.uint8)
    positions = np.zeros((num_rows, row_patches, 2), np.int32)
    windows = np.zeros((num_rows, row_patches), np.int32)
    frames = np.zeros((num_rows, row_patches), np.int32)
    for row, image in enumerate(images):
        count = len(image.patches)
        patches[row, :count] = image.patches
        positions[row, :count], windows[row, :count], frames[row, :count] = _layout(
            image.grid, merge_size, window_patches
        )
    tokens_per_row = row_patches // merge_size**2
    return VisionInputs(patches, positions, windows, frames), [row * tokens_per_row for row in range(len(images))]


# As dear as an image's resize if it were made anew each time; a set has few sizes.
@functools.lru_cache(maxsize=256)
def _layout(grid: tuple[int, int, int], merge: int, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions [P, 2], window ids [P] and frame ids [P] of one image, in the order of its patches."""
    frames, rows, columns = grid
    place = np.indices((rows, columns)).transpose(1, 2, 0)
    place = place.reshape(rows // merge, merge, columns // merge, merge, 2).transpose(0, 2, 1, 3, 4).reshape(-1, 2)
    per_row = -(-columns // window)
    in_frame = (place[:, 0] // window) * per_row + place[:, 1] // window
    windows_per_frame = -(-rows // window) * per_row
    frame = np.repeat(np.arange(frames), rows * columns)
    return np.tile(place, (frames, 1)), frame * windows_per_frame + np.tile(in_frame, frames) + 1, frame + 1
