"""A corpus of a few invented pages and drawn flags, generated in each test session."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image, ImageDraw

from tools_server.text_index import Page

PAGES = [
    Page("Velmora", "https://x.example/velmora", "Capital: Ostrin\nCurrency: lume (VLM)\nPopulation: 1,204,118"),
    Page("New Velmora", "https://x.example/new", "Capital: Harn\nPopulation: 88,010\nNational anthem: Rise, O Hills"),
    Page("Geography of Velmora", "https://x.example/geo", "Area: 4,100 sq km\nHighest point: Mount Tahl"),
    Page("Thé Tower", "https://x.example/tower", "Country: Velmora\nA tall tower. It was built in 1889 by masons."),
    Page("Noise", "https://x.example/noise", "The capital of something is spoken of here. Capital letters matter."),
]
COLOURS = {
    "Flag of Velmora": ((200, 20, 30), (250, 250, 250), (20, 60, 160)),
    "Flag of New Velmora": ((20, 140, 60), (250, 220, 20), (200, 20, 30)),
    "Flag of Harland": ((20, 60, 160), (250, 220, 20), (20, 60, 160)),
}


def bands(colours: tuple[tuple[int, int, int], ...], size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A flag of horizontal bands with a disc."""
    image = Image.new("RGB", size)
    pen = ImageDraw.Draw(image)
    for i, colour in enumerate(colours):
        pen.rectangle((0, i * size[1] // 3, size[0], (i + 1) * size[1] // 3), colour)
    pen.ellipse((size[0] * 0.4, size[1] * 0.36, size[0] * 0.6, size[1] * 0.64), colours[-1])
    return image


def write_corpus(folder: Path) -> Path:
    """Writes pages.jsonl, images.jsonl and the pictures; returns the folder."""
    (folder / "images").mkdir(parents=True)
    pages = [{"id": str(i), "title": p.title, "url": p.url, "text": p.text} for i, p in enumerate(PAGES)]
    (folder / "pages.jsonl").write_text("\n".join(json.dumps(page) for page in pages), encoding="utf-8")
    pictures = []
    for i, (title, colours) in enumerate(COLOURS.items()):
        bands(colours).save(folder / "images" / f"{i}.png")
        pictures.append({"id": str(i), "file": f"images/{i}.png", "title": title, "description": "bands", "url": ""})
    (folder / "images.jsonl").write_text("\n".join(json.dumps(p) for p in pictures), encoding="utf-8")
    return folder


def scene(left: str, right: str) -> tuple[Image.Image, list[tuple[int, int, int, int]]]:
    """Two white-framed flags side by side on a plain wall, and their boxes."""
    image = Image.new("RGB", (448, 336), (110, 120, 90))
    boxes = [(20, 90, 200, 225), (240, 100, 420, 235)]
    for title, (x0, y0, x1, y1) in zip((left, right), boxes, strict=True):
        image.paste((248, 248, 246), (x0 - 3, y0 - 3, x1 + 3, y1 + 3))
        image.paste(bands(COLOURS[title]).resize((x1 - x0, y1 - y0)), (x0, y0))
    return image, boxes


def encode(image: Image.Image, form: str = "JPEG") -> str:
    """The image as encoded in a request."""
    out = io.BytesIO()
    image.save(out, form)
    return base64.b64encode(out.getvalue()).decode()
