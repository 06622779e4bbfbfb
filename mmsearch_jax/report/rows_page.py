"""One self-contained HTML page that shows rows: images with boxes, question, answers, conversation.

Rows are untrusted text: the template escapes everything, and the page runs no script and needs no network.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.core.search_api import Box
from mmsearch_jax.data.storage import Scanned
from mmsearch_jax.images.processing import load_image

_IMAGE_WIDTH = 448


def write_rows_page(scanned: Iterable[Scanned], out: str | Path, title: str) -> int:
    """Writes the page (bad rows with the reason), and returns the number of rows on it."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("mmsearch_jax.report", "."), autoescape=True)
    rows = [_shown(item) for item in scanned]
    page = environment.get_template("rows.html.jinja").render(title=title, rows=rows)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return len(rows)


def _shown(scanned: Scanned) -> dict[str, Any]:
    row = scanned.row
    if isinstance(row, DataError):
        return {"number": scanned.number, "id": "not a row", "problem": str(row), "pictures": [], "facts": []}
    search = {True: "needs a search", False: "needs no search", None: ""}[row.search_required]
    source = ", ".join(f"{key} {value}" for key, value in row.provenance.items())
    boxes = [(p.box, "gold", p.entity) for p in row.placements]
    boxes += [(turn.box, "crop", f"turn {i}") for i, turn in enumerate(row.turns, 1) if turn.box]
    pictures = [_picture(image, boxes if i == 0 else []) for i, image in enumerate(row.images)]
    return {
        "number": scanned.number,
        "id": row.id,
        "question": row.question,
        "answers": row.answers,
        "turns": row.turns,
        "facts": [fact for fact in (row.kind, row.category, search, source) if fact],
        "pictures": pictures,
    }


def _picture(image: str | bytes, boxes: list[tuple[Box, str, str]]) -> dict[str, Any]:
    try:
        opened = load_image(image)
    except ImageError as error:
        return {"url": None, "problem": str(error)}
    width, height = opened.size
    opened.thumbnail((_IMAGE_WIDTH, _IMAGE_WIDTH))
    buffer = io.BytesIO()
    opened.save(buffer, "JPEG", quality=72)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {
        "url": url,
        "boxes": [
            {
                "kind": kind,
                "title": title,
                "left": f"{100 * x0 / width:.2f}",
                "top": f"{100 * y0 / height:.2f}",
                "width": f"{100 * (x1 - x0) / width:.2f}",
                "height": f"{100 * (y1 - y0) / height:.2f}",
            }
            for (x0, y0, x1, y1), kind, title in boxes
        ],
    }
