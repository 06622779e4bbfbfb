"""Fits a tool call to the limits of the search server, so that nothing that the policy may ask is refused.

A query that is too long is cut at a word. A picture with too many pixels or bytes is shrunk, one that is too small or too
narrow is enlarged or framed in white; boxes in the reply are converted back to the caller's picture.
What fits is sent as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math

from PIL import Image

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.core.pictures import decode_picture, picture_size
from mmsearch_jax.core.search_api import Box, RequestLimits, SearchReply, fit_text

_SLACK_BYTES = 64 * 2**10
"""Room for the rest of the request beside the picture."""
_QUALITIES = (95, 90, 80, 65)


@dataclasses.dataclass(frozen=True)
class FittedImage:
    """An encoded picture that the server accepts.

    Attributes:
      data: its bytes.
      size: width and height of the caller's picture, upright; None if `data` is that picture.
      placed: where the caller's picture lies in `data`: x0, y0, x1, y1 in its pixels.
    """

    data: bytes
    size: tuple[int, int] | None = None
    placed: Box = (0, 0, 0, 0)

    def restore(self, reply: SearchReply) -> SearchReply:
        """The reply with its boxes in pixels of the caller's picture."""
        if self.size is None:
            return reply
        return dataclasses.replace(
            reply,
            box=None if reply.box is None else self._box(reply.box),
            other_boxes=tuple(self._box(box) for box in reply.other_boxes),
        )

    def _box(self, box: Box) -> Box:
        assert self.size is not None
        (left, top, right, bottom), (width, height) = self.placed, self.size
        across, down = width / (right - left), height / (bottom - top)
        x0, x1 = (min(max(round((x - left) * across), 0), width) for x in (box[0], box[2]))
        y0, y1 = (min(max(round((y - top) * down), 0), height) for y in (box[1], box[3]))
        return (
            min(x0, width - 1),
            min(y0, height - 1),
            max(x1, min(x0, width - 1) + 1),
            max(y1, min(y0, height - 1) + 1),
        )


def fit_query(text: str, limits: RequestLimits) -> str:
    """The text as the server accepts it: unchanged if it is."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limits.max_query_chars else fit_text(text, limits.max_query_chars)


@functools.lru_cache(maxsize=16)
def fit_image(data: bytes, limits: RequestLimits) -> FittedImage:
    """The picture as the server accepts it. Data that is no picture stays as it is: the server says why it cannot be read.

    Raises:
      ImageError: it is damaged or too large to decode.
    """
    try:
        width, height = picture_size(data)
    except ImageError:
        return FittedImage(data)
    room = (limits.max_body_bytes - _SLACK_BYTES) // 4 * 3
    sides = (
        width * height <= limits.max_pixels
        and min(width, height) >= limits.min_side
        and max(width, height) <= limits.max_aspect * min(width, height)
    )
    if sides and len(data) <= room:
        return FittedImage(data)
    image = decode_picture(data)
    size, made = image.size, _fitting_sides(image, limits)
    encoded, placed = _fitting_bytes(*made, room)
    return FittedImage(encoded, size, placed)


def _fitting_sides(image: Image.Image, limits: RequestLimits) -> tuple[Image.Image, Box]:
    long, short = max(image.size), min(image.size)
    scale = min(max(1.0, limits.min_side / short), math.sqrt(limits.max_pixels / (long * short)))
    while math.prod(_framed(image.size, scale, limits)) > limits.max_pixels:
        scale *= 0.95  # the white frame of a narrow picture has pixels, too
    framed = _framed(image.size, scale, limits)
    image = image.resize(_sides(image.size, scale), Image.Resampling.BICUBIC, reducing_gap=3.0)
    left, top = ((outer - inner) // 2 for outer, inner in zip(framed, image.size, strict=True))
    placed = (left, top, left + image.width, top + image.height)
    if framed == image.size:
        return image, placed
    white = Image.new("RGB", framed, (255, 255, 255))
    white.paste(image, (left, top))
    return white, placed


def _framed(size: tuple[int, int], scale: float, limits: RequestLimits) -> tuple[int, int]:
    """The sides of a scaled picture with the frame that makes it large and wide enough."""
    width, height = _sides(size, scale)
    least = max(limits.min_side, math.ceil(max(width, height) / limits.max_aspect))
    return max(width, least), max(height, least)


def _sides(size: tuple[int, int], scale: float) -> tuple[int, int]:
    # Down for shrinking, so that the area stays within the limit; up for enlarging, so that the side reaches it.
    whole = math.floor if scale < 1.0 else math.ceil
    return max(1, whole(size[0] * scale)), max(1, whole(size[1] * scale))


def _fitting_bytes(image: Image.Image, placed: Box, room: int) -> tuple[bytes, Box]:
    while True:
        for quality in _QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality)
            if out.tell() <= room or max(image.size) <= 16:
                return out.getvalue(), placed
        image = image.resize(_sides(image.size, 0.7), Image.Resampling.BICUBIC)
        placed = (round(placed[0] * 0.7), round(placed[1] * 0.7), round(placed[2] * 0.7), round(placed[3] * 0.7))
