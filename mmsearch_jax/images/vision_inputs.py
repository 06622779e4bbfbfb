"""Packs processed images into rows of patches, with the segments and positions that the vision tower needs.

Pure host-side NumPy. This module also matches a sequence's image placeholders with its images. Several images share a row. The
patches of an image are ordered by window, so that each window and each frame is a contiguous run of patches with the same
segment id; 0 is padding and attends to nothing. Tokens are in raster order: `pack_images` returns the features of each image.
Legend: R rows, P patches in a row, m merge size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_layout import QWEN2_5_VL, VisionLayout


class VisionInputs(NamedTuple):
    """Rows of packed images.

    Attributes:
      patches: uint8 [R, P, channels * height * width of a patch]; `models/vision.py` normalises them.
      positions: int32 [R, P, 2], row and column of each patch in its image.
      window_segment_ids: int32 [R, P], 1, 2, ... per window; the count continues across the images of a row.
      image_segment_ids: int32 [R, P], 1, 2, ... per frame of an image; the count continues in the same way.
    """

    patches: UInt8[Any, "R P bytes"]
    positions: Int32[Any, "R P 2"]
    window_segment_ids: Int32[Any, "R P"]
    image_segment_ids: Int32[Any, "R P"]


def image_runs(token_ids: Sequence[int] | Int[np.ndarray, "L"], image_token_id: int, sizes: Sequence[int]) -> list[int]:
    """Index of the first placeholder of each image.

    Every image needs its own run of placeholders, of exactly its size: other tokens must separate two images (Qwen's markup
    puts <|vision_end|><|vision_start|> between them).

    Args:
      token_ids: int [L].
      sizes: tokens of each image, in order.

    Raises:
      DataError: runs and images differ in number or length; the message gives the token's index.
    """
    is_image = np.concatenate([[False], np.asarray(token_ids) == image_token_id, [False]])
    edges = np.flatnonzero(is_image[1:] != is_image[:-1])
    starts, lengths = edges[::2].tolist(), (edges[1::2] - edges[::2]).tolist()
    for number, (start, length, size) in enumerate(zip(starts, lengths, sizes, strict=False)):
        if length != size:
            raise DataError(
                f"image {number} has {size} tokens, but the run of image placeholders at token {start} has {length}: "
                "write one placeholder per merged patch, and other tokens between two images"
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


class PatchRows:
    """Rows of patches that are filled image by image; each image goes into the fullest row with enough room (best fit).

    The places depend only on the sizes and their order: placing the same images again gives the same places.
    """

    def __init__(self, num_rows: int, row_patches: int):
        self._row_patches, self._room = row_patches, np.full(num_rows, row_patches)

    def place(self, sizes: Sequence[int]) -> list[tuple[int, int]] | None:
        """Row and first patch of each image; None, without taking any room, if they do not all fit.

        Args:
          sizes: number of patches of each image.
        """
        room, places = self._room.copy(), []
        for size in sizes:
            fitting = np.flatnonzero(room >= size)
            if not len(fitting):
                return None
            row = int(fitting[np.argmin(room[fitting])])
            places.append((row, self._row_patches - int(room[row])))
            room[row] -= size
        self._room = room
        return places


def pack_images(
    images: Sequence[ProcessedImage],
    row_patches: int | None = None,
    num_rows: int | None = None,
    *,
    layout: VisionLayout = QWEN2_5_VL,
) -> tuple[VisionInputs, list[Int[np.ndarray, "tokens"]]]:
    """Images in rows of equal length, placed by `PatchRows` in the given order; the rest of a row is padding.

    Args:
      row_patches: length of a row; by default that of the longest image.
      num_rows: number of rows; by default the number of rows with an image.
      layout: of the vision tower that will see the images.

    Returns:
      The inputs, and for each image the indices of its tokens' features in the list [R * P / m^2], in raster order.

    Raises:
      ValueError: the images do not fit.
      DataError: an image's number of patches does not match its grid.
    """
    merge_size = layout.merge_size
    for number, image in enumerate(images):
        t, h, w = image.grid
        if len(image.patches) != t * h * w or h % merge_size or w % merge_size:
            raise DataError(
                f"image {number} has {len(image.patches)} patches and the grid {image.grid}: the product of a grid must be its "
                f"number of patches, and its sides multiples of {merge_size}"
            )
    sizes = [len(image.patches) for image in images]
    row_patches = row_patches or max(sizes)
    places = PatchRows(num_rows or len(images), row_patches).place(sizes)
    if places is None or row_patches % merge_size**2:
        raise ValueError(
            f"{len(images)} images of up to {max(sizes)} patches do not fit {num_rows} rows of {row_patches}"
        )
    # Rows are filled in order.
    num_rows = num_rows or 1 + max(row for row, _ in places)
    patches = np.zeros((num_rows, row_patches, images[0].patches.shape[1]), np.uint8)
    positions = np.zeros((num_rows, row_patches, 2), np.int32)
    windows = np.zeros((num_rows, row_patches), np.int32)
    frames, features = np.zeros((num_rows, row_patches), np.int32), []
    for (row, start), image in zip(places, images, strict=True):
        span = slice(start, start + len(image.patches))
        ordered = _ordered(image.grid, merge_size, layout.window_patches)
        patches[row, span] = image.patches[ordered.order]
        positions[row, span] = ordered.positions
        windows[row, span] = ordered.windows + windows[row].max()
        frames[row, span] = ordered.frames + frames[row].max()
        features.append((row * row_patches + start) // merge_size**2 + ordered.features)
    return VisionInputs(patches, positions, windows, frames), features


class _Ordered(NamedTuple):
    """The order of an image's P patches in a row.

    Attributes:
      order: int [P], the patches' indices in the image, in the order of the row.
      positions: int [P, 2]; windows, frames: int [P], ids from 1; all in the order of the row.
      features: int [P / m^2], the index in the row of each merged patch, in raster order.
    """

    order: Int[np.ndarray, "P"]
    positions: Int[np.ndarray, "P 2"]
    windows: Int[np.ndarray, "P"]
    frames: Int[np.ndarray, "P"]
    features: Int[np.ndarray, "tokens"]


# Cached: computing it costs as much as resizing the image, and a data set has few sizes.
@functools.lru_cache(maxsize=256)
def _ordered(grid: tuple[int, int, int], merge: int, window: int) -> _Ordered:
    frames, rows, columns = grid
    place = np.indices((rows, columns)).transpose(1, 2, 0)
    place = place.reshape(rows // merge, merge, columns // merge, merge, 2).transpose(0, 2, 1, 3, 4).reshape(-1, 2)
    per_row = -(-columns // window)
    in_frame = (place[:, 0] // window) * per_row + place[:, 1] // window
    windows_per_frame = -(-rows // window) * per_row
    frame = np.repeat(np.arange(frames), rows * columns)
    windows = frame * windows_per_frame + np.tile(in_frame, frames) + 1
    order = np.argsort(windows, kind="stable")
    # Windows contain whole merged patches.
    features = np.argsort(order[:: merge**2] // merge**2)
    return _Ordered(order, np.tile(place, (frames, 1))[order], windows[order], frame[order] + 1, features)
