"""Files that rows name as their image: what a policy can be shown, and what it cannot."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image, kind="PNG", **options):
    """The bytes of an image."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width, height):
    """A PNG that says it is of this size, without its pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"\0")
    chunks = ((13, body), (len(pixels) - 4, pixels), (0, b"IEND"))
    packed = (struct.pack(">I", size) + chunk + struct.pack(">I", zlib.crc32(chunk)) for size, chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _noise(width=40, height=30):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


SOUND = {
    "plain.png": encoded(_noise()),
    "one_pixel.png": encoded(Image.new("RGB", (1, 1))),
    "ratio_of_200.png": encoded(Image.new("RGB", (400, 2))),
    "animated.gif": encoded(_noise(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
    "transparent.png": encoded(Image.new("RGBA", (20, 20), (1, 2, 3, 0))),
    "sixteen_bits.png": encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16))),
    "named_wrongly.txt": encoded(_noise(), "JPEG"),
}
"""By file name. A header or all pixels: both are sound."""

UNUSABLE = {
    "empty.png": (b"", "not an image"),
    "text.jpg": (b"<html>404</html>", "not an image"),
    "narrow.png": (encoded(Image.new("RGB", (5000, 2))), "too narrow"),
    "tall.png": (encoded(Image.new("RGB", (2, 402))), "too narrow"),
    "bomb.png": (png_header(60_000, 60_000), "DecompressionBomb|too large|exceeds limit"),
    "no_size.png": (png_header(0, 5), "damaged|not an image|no pixels"),
}
"""By file name: contents, and what the reason says. The header shows it."""

DAMAGED = {
    "cut.jpg": (encoded(_noise(200, 200), "JPEG")[:4000], "truncated"),
    "cut.png": (encoded(_noise(60, 60))[:3000], "truncated|damaged"),
    "without_pixels.png": (png_header(50, 50), "damaged|truncated|not an image"),
}
"""As `UNUSABLE`, but only the pixels show it."""


def write_all(folder):
    """Writes all of them, a directory, a pipe and a link to nothing."""
    for name, content in SOUND.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in (UNUSABLE | DAMAGED).items():
        (folder / name).write_bytes(content)
    (folder / "directory.png").mkdir()
    (folder / "link.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
