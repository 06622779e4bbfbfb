"""The one decoder: every depth, mode and kind of transparency, malformed tags, size limits."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.core.pictures import decode_picture, picture_size
from mmsearch_jax.images.processing import load_image
from tools_server.image_index import open_picture
from tools_server.request_images import decode_image

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (16, 1))


def saved(image: Image.Image, form: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def grey16() -> bytes:
    return saved(Image.fromarray(RAMP.astype(np.uint16) * 257))


def pgm(largest: int) -> bytes:
    values = (RAMP.astype(np.uint32) * largest // 255).astype(">u2")
    return b"P5 64 16 %d\n" % largest + values.tobytes()


def white_is_zero() -> bytes:
    """A TIFF of 16 bits whose zeros are white, as scanners and X-ray devices write them."""
    height, width = RAMP.shape
    values = (65535 - RAMP.astype(np.uint16) * 257).astype("<u2").tobytes()
    entries = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 0), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, height), (279, 4, len(values))]
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + struct.pack("<H", len(entries)) + packed + bytes(4)


DEPTHS = {
    "16 bits, TIFF, white is zero": white_is_zero(),
    "8 bits": saved(Image.fromarray(RAMP)),
    "16 bits": grey16(),
    "16 bits, TIFF": saved(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"),
    "16 bits, PGM": pgm(65535),
    "12 bits, PGM": pgm(4095),
    "32 bits, TIFF": saved(Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"),
    "float to 1": saved(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
    "float to 255": saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "palette": saved(Image.fromarray(RAMP).convert("P")),
    "grey and alpha": saved(Image.fromarray(RAMP).convert("LA")),
    "RGBA": saved(Image.fromarray(RAMP).convert("RGBA")),
    "CMYK": saved(Image.fromarray(RAMP).convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_policy_server_and_index_see_the_same_ramp_at_every_depth(name: str, tmp_path: Path):
    data = DEPTHS[name]
    policy = np.asarray(load_image(data)).astype(int)
    assert np.abs(policy - RAMP[..., None]).max() <= 2
    assert (policy == np.asarray(decode_image(data, 10**6))).all()
    file = tmp_path / "picture"
    file.write_bytes(data)
    assert (policy == np.asarray(open_picture(file))).all()


def transparent(mode: str) -> tuple[bytes, tuple[int, int]]:
    """A picture whose left half is transparent black (or one key colour), the right half of one opaque colour."""
    if mode == "I;16":
        values = np.full((8, 8), 40_000, np.uint16)
        values[:, :4] = 1000
        return saved(Image.fromarray(values), transparency=1000), (255, 40_000 >> 8)
    image = Image.new("RGBA", (8, 8), (90, 90, 90, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    if mode == "P":
        indexed = Image.new("P", (8, 8), 1)
        indexed.putpalette([0, 0, 0, 90, 90, 90])
        indexed.paste(0, (0, 0, 4, 8))
        return saved(indexed, transparency=0), (255, 90)
    if mode in ("L", "RGB"):
        return saved(image.convert(mode), transparency=0 if mode == "L" else (0, 0, 0)), (255, 90)
    return saved(
        image.convert(mode), "WEBP" if mode == "RGBA" else "PNG", **({"lossless": True} if mode == "RGBA" else {})
    ), (255, 90)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "I;16"])
def test_what_is_transparent_is_white_everywhere(mode: str, tmp_path: Path):
    data, (left, right) = transparent(mode)
    file = tmp_path / "picture"
    file.write_bytes(data)
    for seen in (load_image(data), decode_image(data, 10**6), open_picture(file)):
        pixels = np.asarray(seen)
        assert (pixels[:, :4] == left).all()
        assert (pixels[:, 4:] == right).all()


def sixteen_bit_rgb(key: tuple[int, int, int]) -> bytes:
    """A PNG of 16 bits a channel, written by hand, in which one colour is transparent."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + struct.pack(">12H", *key, *key, *(0x8000,) * 6)
    head = struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"tRNS", struct.pack(">3H", *key))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(row * 2)), chunk(b"IEND", b"")])


def test_a_transparent_colour_of_16_bits_is_white():
    pixels = np.asarray(decode_picture(sixteen_bit_rgb((0x1234, 0x5678, 0x9ABC))))
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, 2:] == 0x80).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_once_even_if_it_is_decoded_twice(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, 20, 20))
    made = decode_picture(saved(image, exif=exif))
    assert made.size == ((40, 20) if orientation < 5 else (20, 40))
    assert (np.asarray(decode_picture(made)) == np.asarray(made)).all()


def segment(*tags: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of entries: number, type, count, four bytes of value."""
    entries = b"".join(struct.pack(">HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + entries + bytes(4)


TURNED = (0x0112, 3, 1, b"\0\x06\0\0")


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (segment((0x0100, 2, 4, b"abc\0"), TURNED), True),
        (segment(TURNED, (0x829A, 5, 1, b"\xff\xff\xff\xff")), True),
        (segment((0x8825, 2, 4, b"gps\0"), TURNED), True),
        (segment((0x9286, 99, 4, b"abcd"), TURNED), True),
        (segment((0x0112, 2, 4, b"six\0")), False),
        (segment((0x0112, 3, 2, b"\0\x06\0\x06")), True),
        (b"\x07\x00\xff", False),
        (b"Exif\0\0II*\0\x08\0\0\0\x01\0", False),
        (bytes(40), False),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_malformed_tag_does_not_cost_the_picture(exif: bytes, turned: bool):
    plain = saved(Image.new("RGB", (40, 20), (9, 9, 9)), "JPEG")
    picture = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert decode_picture(picture).size == ((20, 40) if turned else (40, 20))
    assert decode_image(picture, 10**6).size == load_image(picture).size


def test_a_picture_over_the_limit_is_refused_by_its_header_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch):
    data = saved(Image.new("1", (9000, 9000)))
    assert len(data) < 20_000
    assert picture_size(data) == (9000, 9000)

    def unpacked(*_: object):
        raise AssertionError("pixels were unpacked")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", unpacked)
    for decode in (lambda: decode_picture(data, max_pixels=10**6), lambda: decode_image(data, 10**6)):
        with pytest.raises(ImageError, match="9000 x 9000 pixels, at most 1,000,000"):
            decode()


def test_the_given_image_stays_as_it_is():
    given = Image.new("RGB", (4, 4))
    made = decode_picture(given)
    made.putpixel((0, 0), (1, 2, 3))
    assert given.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("data", [b"", b"GIF89a", saved(Image.new("RGB", (64, 64), (1, 2, 3)))[:70]])
def test_what_is_no_picture_is_an_image_error(data: bytes):
    with pytest.raises(ImageError):
        decode_picture(data)


def test_the_decoder_loads_neither_jax_nor_the_packages_above_it():
    heavy = "[m for m in ('jax', 'numba', 'mmsearch_jax.images') if m in sys.modules]"
    code = f"import sys, mmsearch_jax.core.pictures; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
