"""The one decoder of pictures: what the policy sees is what is searched for, indexed and shown.

RGB with 8 bits a channel: the first frame, turned upright, transparency over white, deeper channels scaled by their full range.
Needs Pillow and NumPy and nothing else.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmsearch_jax.core.errors import ImageError

MAX_PIXELS = 178_956_970
"""The most pixels that are decoded unless a caller says otherwise: Pillow's own bound, 512 MiB of RGB."""
DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    ArithmeticError,
    struct.error,
)
"""What Pillow raises when a header, a chunk or a tag is wrong; some of them are not translated."""
_ORIENTATION = 0x0112
_PHOTOMETRIC, _WHITE_IS_ZERO = 0x0106, 0
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_FULL_SCALES = (255.0, 65535.0, 2.0**31 - 1, 2.0**32 - 1)


def decode_picture(
    source: str | Path | bytes | Image.Image,
    name: str = "the image",
    *,
    max_pixels: int = MAX_PIXELS,
    draft: tuple[int, int] | None = None,
) -> Image.Image:
    """A picture as RGB.

    Args:
      source: a path, encoded bytes, or an opened image, which is left as it is.
      name: what an error calls it.
      max_pixels: a larger picture is refused by its header, before its pixels are unpacked.
      draft: width and height that suffice: a large JPEG is decoded at reduced size, at least this.

    Raises:
      ImageError: it is missing, not an image, damaged, empty or too large.
    """
    try:
        if isinstance(source, Image.Image):
            made = _decoded(source, name, max_pixels)
            return made.copy() if made is source else made
        with _opened(source, name, max_pixels) as image:
            if draft is not None:
                image.draft("RGB", draft)
            return _decoded(image, name, max_pixels)
    except FileNotFoundError as error:
        raise ImageError(f"no image at {name}: check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder: give an image file") from error
    except PermissionError as error:
        raise ImageError(f"{name} cannot be read for lack of permission: change its permissions") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that Pillow can read: convert it to JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large to decode safely ({error}): make it smaller") from error
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory than there is: make it smaller") from error
    except DAMAGE as error:
        raise ImageError(f"{name} is damaged ({error}): replace the file") from error


def picture_size(source: str | Path | bytes, name: str = "the image") -> tuple[int, int]:
    """Width and height as the header gives them, before rotation; no pixel is unpacked.

    Raises:
      ImageError: as `decode_picture`.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large to decode safely ({error}): make it smaller") from error
    except DAMAGE as error:
        raise ImageError(f"{name} is not an image that Pillow can read: convert it to JPEG or PNG") from error


def _opened(source: str | Path | bytes, name: str, max_pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    # Before the draft, which changes the size.
    _check_size(image, name, max_pixels)
    return image


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{name} is {width} x {height} pixels: give an image that is not empty")
    if width * height > max_pixels:
        raise ImageError(f"{name} has {width} x {height} pixels, at most {max_pixels:,} are decoded: make it smaller")


def _decoded(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image, name, max_pixels)
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    flat = _over_white(image)
    if turn is not None:
        flat = flat.transpose(turn)
    if flat is not image:
        flat.info = {}  # whoever decodes the result again must not turn it again
    return flat


def _orientation(image: Image.Image) -> int:
    # Other tags may be malformed; only this one matters.
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _over_white(image: Image.Image) -> Image.Image:
    """The picture as RGB with 8 bits a channel, what is transparent over white."""
    clear = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = _scaled(values, image.mode, image.format)
        # Pillow inverts these itself only at 8 bits and fewer.
        if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 255 - grey
        if isinstance(clear, int):
            grey = np.where(values == clear, np.uint8(255), grey)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        # The file had 16 bits a channel, of which Pillow kept the upper eight.
        pixels = np.array(image)
        pixels[(pixels == np.array([value >> 8 for value in clear], np.uint8)).all(-1)] = 255
        return Image.fromarray(pixels)
    if image.mode in _WITH_ALPHA or clear is not None:
        if image.mode in ("RGBa", "La"):
            image = image.convert(image.mode.upper())
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(values: np.ndarray, mode: str, form: str | None) -> np.ndarray:
    """Grey values of more than 8 bits as uint8 [H, W], by their full scale."""
    if mode.startswith("I;16"):
        return (values >> 8).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = finite.max(initial=0.0)
    if form in ("PNG", "PPM"):
        full = 65535.0 if mode == "I" else 1.0
    else:
        # TIFF does not say which values are white: the smallest usual full scale that holds all of them.
        scales = (1.0, *_FULL_SCALES) if mode == "F" else _FULL_SCALES
        full = next((scale for scale in scales if largest <= scale), largest)
    if full == 65535.0:
        return (np.clip(finite, 0, full).astype(np.uint16) >> 8).astype(np.uint8)
    return np.rint(np.clip(finite / full, 0.0, 1.0) * 255).astype(np.uint8)
