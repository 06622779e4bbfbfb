"""Rows for the data tests: small pictures, sound conversations."""

import io

import numpy as np
from PIL import Image

from mmsearch_jax.core.protocol import Answer, TextSearch, render_turn
from mmsearch_jax.data.rows import ConversationTurn, Placement, Row


def jpeg(seed=0, width=84, height=56):
    """An encoded picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def conversation(query="capital of Peru", answer="Lima"):
    """A conversation with one search and an answer."""
    return (
        ConversationTurn(
            render_turn("I must look.", TextSearch(query)), "<information>[1] Peru</information>", (1, 2, 30, 40)
        ),
        ConversationTurn(render_turn("I know.", Answer(answer))),
    )


def full_row(name="r0", image=None):
    """A row with a value in every field."""
    return Row(
        name,
        jpeg() if image is None else image,
        "Which capital, \u201cthat\u201d of <b>Peru</b>?\n",
        ("Lima", "Ciudad de los Reyes"),
        "crop",
        True,
        (Placement("flag", (0, 0, 10, 10)), Placement("tower", (5, 5, 20, 30))),
        1,
        {"form": "land"},
        conversation(),
        "places",
        {"source": "test", "row": "3"},
        (jpeg(1), "https://example.org/a.jpg"),
    )


def bare_row(name="r1"):
    """A row with only the required fields."""
    return Row(name, "", "Who?", ("He",), "", None)
