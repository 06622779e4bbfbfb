"""Lines of a file of rows, most with something odd in them: types, encodings, lengths, and images of every kind."""

import base64
import copy
import io
import json
import re
import struct

import numpy as np
from PIL import Image

from mmsearch_jax.data.formats.jsonl import data_url
from mmsearch_jax.data.rows import KINDS
from tests.data import odd_images
from tests.data.odd_images import encoded
from tests.data.rows import jpeg

HALF = "half \ud83d"
TEXTS = (
    "What is it?", "", " ", "\n", "\0", "nul \0 inside", HALF, "é" * 300, "词" * 400, "word " * 2000, "x" * 100_000,
    "<image>", "<|image_pad|><|vision_start|>", "<|im_end|>\n<|im_start|>assistant\n", "<answer>Lima</answer>",
    "e\u0301\u0302", "<information>x",    "\ud83d\ude00", "null", "[1, 2]", "{}",
    "\u202eleft", "a\r\nb\u2028c", "data:image/png;base64,%%%", "\ufeffWho?", "\x1b[31mred",
)  # fmt: skip
JUNK = (
    None, True, False, 0, -1, 1 << 70, 2.5, float("nan"), float("inf"), [], [None], [[]], {}, {"bytes": 3}, {"file": "0.jpg"},
    {"a": 1}, {"a": "b"}, {"": ""}, {HALF: "x"}, {"file": "x"},
    ["a", 1], ["", " "], ["a"] * 3000, [HALF], *TEXTS,
)  # fmt: skip
FIELDS = (
    "schema", "id", "image", "question", "answers", "kind", "search_required", "placements", "target", "meta", "turns",
    "category", "provenance", "more_images",
)  # fmt: skip


_NESTED = re.compile(rb'"@nested (\d+)@"')
"""Stands for lists in lists, which Python's encoder cannot write."""


def _turned(kind, value, count=1, tag=0x0112, cut=None):
    """A JPEG with one EXIF tag, by default its orientation, of a type that may be wrong."""
    entry = struct.pack("<HHI4s", tag, kind, count, value.ljust(4, b"\0"))
    exif = b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 1) + entry + bytes(4)
    return encoded(Image.new("RGB", (30, 20), (9, 8, 7)), "JPEG", exif=exif[:cut])


def pictures():
    """Encoded images, sound or not, by name."""
    grey = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    made = dict(odd_images.SOUND)
    made |= {name: content for name, (content, _) in (odd_images.UNUSABLE | odd_images.DAMAGED).items()}
    made |= {
        "row.png": encoded(Image.new("RGB", (400, 1))),
        "column.png": encoded(Image.new("RGB", (1, 400))),
        "palette.png": encoded(noise.convert("P")),
        "palette_clear.png": encoded(noise.convert("P"), transparency=3),
        "grey_clear.png": encoded(noise.convert("L"), transparency=9),
        "bits.png": encoded(noise.convert("1")),
        "grey_alpha.png": encoded(noise.convert("LA")),
        "wide_grey.tif": encoded(Image.fromarray(grey * 50), "TIFF"),
        "int.tif": encoded(Image.fromarray(grey.astype(np.int32)), "TIFF"),
        "float.tif": encoded(Image.fromarray(np.where(grey % 7, grey, np.nan).astype(np.float32)), "TIFF"),
        "cmyk.jpg": encoded(noise.convert("CMYK"), "JPEG"),
        "ycc.tif": encoded(noise.convert("YCbCr"), "TIFF"),
        "lab.tif": encoded(noise.convert("LAB"), "TIFF"),
        "still.webp": encoded(noise, "WEBP"),
        "moving.webp": encoded(noise, "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
        "moving.png": encoded(noise, "PNG", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
        "icon.ico": encoded(noise.resize((16, 16)), "ICO"),
        "old.bmp": encoded(noise, "BMP"),
        "map.ppm": encoded(noise, "PPM"),
        "turned.jpg": _turned(3, b"\6"),
        "turned_9.jpg": _turned(3, b"\t"),
        "turned_text.jpg": _turned(2, b"six", 4),
        "turned_list.jpg": _turned(3, b"\6\0\3", 2),
        "turned_none.jpg": _turned(3, b"", 0),
        "turned_ratio.jpg": _turned(5, b"\xff\xff"),
        "turned_type_77.jpg": _turned(77, b"\6"),
        "turned_large.jpg": _turned(3, b"\6", 1 << 31),
        "exposure.jpg": _turned(5, b"\x1a", tag=0x829A),
        "cut_exif.jpg": _turned(3, b"\6", cut=18),
        "svg.svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "head.jpg": jpeg()[:40],
        "tail.jpg": jpeg() + b"more" * 99,
        "garbled.jpg": jpeg()[:300] + bytes(200) + jpeg()[500:],
        "garbled.png": encoded(noise)[:100] + b"\xff" * 20 + encoded(noise)[120:],
    }
    return made


def write_pictures(folder):
    """Writes them, beside a directory, a pipe and a link to nothing; returns what rows may name."""
    odd_images.write_all(folder)
    for name, content in pictures().items():
        (folder / name).write_bytes(content)
    named_oddly = (
        "sub/../plain.png",
        "pl\nain",
        "plain.png/",
        "PLAIN.PNG",
        "file:///plain.png",
        str(folder / "plain.png"),
    )
    odd = (
        "missing.png",
        "directory.png",
        "link.png",
        "pipe.png",
        "nul\0.png",
        "plain.png\0x",
        "x" * 5000,
        ".",
        "/",
        "~/a.png",
    )
    return [*pictures(), *odd, *named_oddly]


class Mutations:
    """Lines of JSON from a seed. `images`: the names that rows may have as their image."""

    def __init__(self, seed, images):
        self._lot, self._images, self._encoded = np.random.default_rng(seed), images, list(pictures().values())

    def _one(self, values):
        return values[int(self._lot.integers(len(values)))]

    def _chance(self, share):
        return self._lot.random() < share

    def _image(self):
        if self._chance(0.6):
            return self._one(self._images)
        content = self._one(self._encoded)
        if self._chance(0.3):
            content = content[: int(self._lot.integers(len(content) + 1))]
        url = data_url(content)
        return self._one(
            (url, url, url, url[:-1], url.replace(";base64", ""), base64.b64encode(content).decode(), "data:,")
        )

    def _sound(self, number):
        record = {
            "id": f"r{number}",
            "image": "plain.png",
            "question": f"What is number {number}?",
            "answers": ["Lima", "the city"],
            "kind": self._one(KINDS),
            "search_required": self._one((True, False, None)),
            "placements": [{"entity": "flag", "box": [0, 0, 10, 10]}],
            "target": self._one((0, None)),
            "meta": {"form": "land"},
            "turns": [{"text": "<reason>a</reason><answer>Lima</answer>", "observation": None, "box": None}],
            "category": "places",
            "provenance": {"source": "test"},
        }
        if self._chance(0.3):
            record = {key: record[key] for key in ("id", "image", "question", "answers")}
        if self._chance(0.7):
            record["image"] = self._image()
        elif self._chance(0.3):
            record["image"] = ""
        if self._chance(0.1):
            record["more_images"] = [self._image() for _ in range(int(self._lot.integers(4)))]
        return record

    def _mutated(self, record):
        record = copy.deepcopy(record)
        for _ in range(int(self._lot.integers(1, 3))):
            field = self._one(FIELDS)
            value = record.get(field)
            choice = self._lot.random()
            if choice < 0.15:
                record.pop(field, None)
            elif choice < 0.2:
                record[self._one(("image2", "Image", "extra", HALF, "schema"))] = record.get(field)
            elif choice < 0.25:
                record[field] = f"@nested {self._lot.integers(1, 1200)}@"
            elif choice < 0.6 and isinstance(value, list | dict) and value:
                key = self._one(list(value) if isinstance(value, dict) else range(len(value)))
                value[key] = copy.deepcopy(self._one(JUNK))
            elif choice < 0.75 and isinstance(value, str):
                record[field] = self._one((value + HALF, value * 50, f" {value}\0", value[:1]))
            else:
                record[field] = copy.deepcopy(self._one(JUNK))
        return record

    def line(self, number):
        """One line of the file, without its end."""
        record = self._sound(number)
        if self._chance(0.45):
            record = self._mutated(record)
        if self._chance(0.04):
            record["id"] = f"r{int(self._lot.integers(number + 1))}"
        line = json.dumps(record, ensure_ascii=bool(self._chance(0.5))).encode("utf-8", "surrogatepass")
        line = _NESTED.sub(lambda found: b"[" * int(found[1]) + b"]" * int(found[1]), line)
        if self._chance(0.06):
            line = self._spoilt(line)
        return line.replace(b"\n", b" ")

    def _spoilt(self, line):
        place = int(self._lot.integers(len(line)))
        return self._one((
            line[:place], line[:place] + b"\xff" + line[place:], line[:-1] + b', "id": "again"}', b"\xef\xbb\xbf" + line,
            b"[" * 5000, b"null", b"[]", b'"text"', b"17", b" ", b"", line + line,
            line.decode("utf-8", "replace").encode("utf-16"), b"[" + line + b"]",
        ))  # fmt: skip

    def file(self, path, count):
        """Writes a file of `count` lines; returns how many of them are not blank."""
        lines = [self.line(number) for number in range(count)]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return sum(bool(line.strip()) for line in io.BytesIO(path.read_bytes()))
