"""Decodes the image of a request, within limits. Independent of routes and search."""

from __future__ import annotations

import base64
import binascii

from PIL import Image

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.core.pictures import MAX_PIXELS, decode_picture, picture_size
from mmsearch_jax.core.search_api import RequestLimits

_LIMITS = RequestLimits()
MIN_SIDE, MAX_ASPECT = _LIMITS.min_side, _LIMITS.max_aspect


def read_base64(image_base64: str) -> bytes:
    """The bytes of an encoded image.

    Args:
      image_base64: in base64; a `data:` prefix is skipped.

    Raises:
      ImageError: not base64, or nothing.
    """
    if image_base64.startswith("data:"):
        image_base64 = image_base64.partition(",")[2]
    try:
        data = base64.b64decode(image_base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"image_base64 is not base64: {error}") from error
    if not data:
        raise ImageError("image_base64 is empty: send an encoded image")
    return data


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An encoded image (JPEG, PNG, WebP, ...) as RGB, turned upright: what `core.pictures` makes of it.

    Args:
      max_pixels: larger images are refused before their pixels are unpacked.

    Raises:
      ImageError: not an image, damaged, too small or too large.
    """
    _check_size(picture_size(data), max_pixels)
    return decode_picture(data, max_pixels=max_pixels)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"the image has {width} x {height} pixels, at most {max_pixels:,} are taken: send a smaller one"
        )
    if min(size) < MIN_SIDE:
        raise ImageError(f"the image has {width} x {height} pixels, each side must have at least {MIN_SIDE}")
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(
            f"the image has {width} x {height} pixels: its long side may be {MAX_ASPECT} times the short one"
        )
