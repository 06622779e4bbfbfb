"""The two loops over an image's pixels, compiled by numba: Pillow's bicubic resize (bit-identical), and the cut into patches.

Resizing is most of an image's cost on the host. Pillow's loop handles one value at a time; these loops use SIMD registers.
The method is that of Pillow 13: the cubic with a = -0.5, widened when the image shrinks; one pass per side, weights in 22-bit
fixed point, each pass rounded to uint8. Older versions of Pillow always begin with the rows, which can change a value by 3.
Legend: H, W height and width in pixels; N pixels after a pass; K weights per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Int32, UInt8

_BITS = 22
_HALF = 1 << (_BITS - 1)
_SUPPORT = 2.0
# Rows that a pass along the rows handles together: 16 rows of 3 channels fill three 512-bit registers.
_BLOCK = 16


def resize(pixels: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """uint8 [H, W, 3] to uint8 [height, width, 3]; equals Pillow's `resize` with `BICUBIC`."""
    old_height, old_width = pixels.shape[:2]
    # Like Pillow: the pass that removes far more pixels than the other runs first.
    columns_first = height < old_height and old_height - height > 2 * (old_width - width)
    for columns in (columns_first, not columns_first):
        if columns and height != old_height:
            flat = np.empty((height, pixels.shape[1] * 3), np.uint8)
            _down_columns(pixels.reshape(old_height, -1), *_weights(old_height, height), flat)
            pixels = flat.reshape(height, -1, 3)
        elif not columns and width != old_width:
            wide = np.empty((len(pixels), width, 3), np.uint8)
            _along_rows(np.ascontiguousarray(pixels), *_weights(old_width, width), wide)
            pixels = wide
    return pixels


def cut(pixels: UInt8[np.ndarray, "H W 3"], patch: int, merge: int) -> UInt8[np.ndarray, "P {3*patch*patch}"]:
    """uint8 [H, W, 3] to patches [H * W / patch^2, 3 * patch * patch]: ordered by blocks of merge x merge neighbours, and
    channel by channel within a patch."""
    height, width = pixels.shape[:2]
    patches = np.empty((height // patch * (width // patch), 3, patch * patch), np.uint8)
    _cut(pixels, patch, merge, patches)
    return patches.reshape(len(patches), -1)


def _weights(size: int, new_size: int) -> tuple[Int32[np.ndarray, "N"], Int32[np.ndarray, "N K"]]:
    """For each new pixel the first old pixel that it depends on, int32 [N], and the weights from there on, int32 [N, K]."""
    scale = size / new_size
    widened = max(scale, 1.0)
    centre = (np.arange(new_size) + 0.5) * scale
    first = np.maximum((centre - _SUPPORT * widened + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + _SUPPORT * widened + 0.5).astype(np.int64), size) - first
    tap = np.arange(count.max())
    x = np.abs((tap + first[:, None] - centre[:, None] + 0.5) * (1.0 / widened))
    cubic = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * -0.5, 0.0))
    cubic = np.where(tap < count[:, None], cubic, 0.0)
    # A running sum, in the order of Pillow's additions.
    cubic /= np.cumsum(cubic, axis=1)[:, -1:]
    return first.astype(np.int32), np.trunc(cubic * (1 << _BITS) + np.where(cubic < 0, -0.5, 0.5)).astype(np.int32)


# Kernels carry `no_type_check`: numba compiles only plain functions, not the wrappers of the tests' shape checks.
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's is writable, so each process compiles again.
        return numba.njit(nogil=True)(function)


@_compiled
@no_type_check
def _down_columns(pixels, first, weights, out):  # pyright: ignore[reportMissingParameterType]
    height, width = pixels.shape
    total = np.empty(width, np.int32)
    for n in range(len(out)):
        total[:] = _HALF
        for k in range(min(weights.shape[1], height - first[n])):
            weight, row = weights[n, k], pixels[first[n] + k]
            for i in range(width):
                total[i] += np.int32(row[i]) * weight
        made = out[n]
        for i in range(width):
            made[i] = min(max(total[i] >> _BITS, 0), 255)


@_compiled
@no_type_check
def _along_rows(pixels, first, weights, out):  # pyright: ignore[reportMissingParameterType]
    height, width, _ = pixels.shape
    # A transposed block of rows, so that the values that are added are contiguous.
    block = np.zeros((width, 3 * _BLOCK), np.uint8)
    total, made = np.empty(3 * _BLOCK, np.int32), np.empty(3 * _BLOCK, np.uint8)
    for top in range(0, height, _BLOCK):
        rows = min(_BLOCK, height - top)
        for r in range(rows):
            row = pixels[top + r]
            for x in range(width):
                for channel in range(3):
                    block[x, 3 * r + channel] = row[x, channel]
        for n in range(len(first)):
            total[:] = _HALF
            for k in range(min(weights.shape[1], width - first[n])):
                weight, column = weights[n, k], block[first[n] + k]
                for i in range(3 * _BLOCK):
                    total[i] += np.int32(column[i]) * weight
            for i in range(3 * _BLOCK):
                made[i] = min(max(total[i] >> _BITS, 0), 255)
            for r in range(rows):
                for channel in range(3):
                    out[top + r, n, channel] = made[3 * r + channel]


@_compiled
@no_type_check
def _cut(pixels, patch, merge, out):  # pyright: ignore[reportMissingParameterType]
    height, width, _ = pixels.shape
    side, number = patch * merge, 0
    for top in range(0, height, side):
        for left in range(0, width, side):
            for inner in range(merge * merge):
                y, x = top + inner // merge * patch, left + inner % merge * patch
                made, at = out[number], 0
                number += 1
                for r in range(y, y + patch):
                    row = pixels[r]
                    for c in range(x, x + patch):
                        for channel in range(3):
                            made[channel, at] = row[c, channel]
                        at += 1
