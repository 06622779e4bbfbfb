"""Pictures for terminals: the protocol of each terminal, and sequences that decode to the picture."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mmsearch_jax.evaluation.terminal_pictures import escape_sequence, protocol_of


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "xterm-sixel"}, "sixel"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_a_terminal_is_known_by_its_environment(environment, protocol):
    assert protocol_of(environment) == protocol


def noise(width=300, height=200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_kitty_gets_a_png_in_chunks():
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", escape_sequence(noise(), "kitty"))
    assert len(chunks) > 2 and all(len(data) <= 4096 for _, data in chunks)
    assert chunks[0][0] == "a=T,f=100,m=1" and chunks[1][0] == "m=1" and chunks[-1][0] == "m=0"
    shown = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in chunks))))
    assert np.array_equal(np.asarray(shown), np.asarray(noise()))


def test_iterm_gets_one_file_and_large_pictures_are_made_small():
    head, _, data = escape_sequence(noise(900, 300), "iterm2").removesuffix("\x07").partition(":")
    assert head.startswith("\x1b]1337;File=inline=1;size=")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 107)


def test_a_sixel_picture_decodes_to_its_colours():
    image = Image.new("RGB", (5, 8), (255, 0, 0))
    image.paste((0, 0, 255), (2, 3, 5, 8))
    text = escape_sequence(image, "sixel")
    assert text.startswith('\x1bPq"1;1;5;8') and text.endswith("\x1b\\")
    colours = {int(i): tuple(map(int, rgb.split(";"))) for i, rgb in re.findall(r"#(\d+);2;(\d+;\d+;\d+)", text)}
    drawn = np.full((12, 5, 3), -1)
    for band, row in enumerate(re.sub(r"#\d+;2;\d+;\d+;\d+", "", text[len('\x1bPq"1;1;5;8') : -2]).split("-")[:2]):
        for colour, columns in re.findall(r"#(\d+)([?-~]*)\$", row):
            for x, character in enumerate(columns):
                for bit in range(6):
                    if (ord(character) - 63) >> bit & 1:
                        drawn[band * 6 + bit, x] = colours[int(colour)]
    assert np.array_equal(drawn[:8], np.asarray(image).astype(int) * 100 // 255) and (drawn[8:] == -1).all()
