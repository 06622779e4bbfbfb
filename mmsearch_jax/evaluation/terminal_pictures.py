"""Pictures in a terminal, with one of three protocols: kitty's, iTerm2's or sixel.

Sources: kitty's graphics protocol (sw.kovidgoyal.net/kitty/graphics-protocol), iTerm2's inline images
(iterm2.com/documentation-images.html), DEC's sixel (VT3xx programmer reference, chapter 14).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

_CHUNK = 4096
_SIXEL_COLOURS = 64
_MAX_SIDE = 320


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """The terminal's picture protocol, from the environment: "kitty", "iterm2", "sixel", or None if it is not known.

    Multiplexers give None, because they do not pass pictures on to the terminal.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if "sixel" in term or term.split("-")[0] in ("foot", "mlterm"):
        return "sixel"
    return None


def escape_sequence(image: Image.Image, protocol: str) -> str:
    """The text that makes the terminal show the image, at most 320 pixels wide and high."""
    small = image.convert("RGB")
    small.thumbnail((_MAX_SIDE, _MAX_SIDE))
    if protocol == "sixel":
        return _sixel(small)
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(buffer.getvalue())}:{encoded}\x07"
    chunks = [encoded[start : start + _CHUNK] for start in range(0, len(encoded), _CHUNK)]
    heads = ["a=T,f=100,", *[""] * (len(chunks) - 1)]
    more = [*[1] * (len(chunks) - 1), 0]
    return "".join(f"\x1b_G{head}m={m};{chunk}\x1b\\" for head, m, chunk in zip(heads, more, chunks, strict=True))


def _sixel(image: Image.Image) -> str:
    """Sixel code: bands of six rows; per colour of a band one character for each column; its six bits are the rows."""
    paletted = image.quantize(_SIXEL_COLOURS)
    pixels = np.asarray(paletted)
    palette = np.asarray(paletted.getpalette() or []).reshape(-1, 3) * 100 // 255
    out = [f'\x1bPq"1;1;{image.width};{image.height}']
    out += [f"#{i};2;{red};{green};{blue}" for i, (red, green, blue) in enumerate(palette.tolist())]
    for top in range(0, image.height, 6):
        band = pixels[top : top + 6]
        weights = 1 << np.arange(len(band))[:, None]
        for colour in np.unique(band).tolist():
            columns = ((band == colour) * weights).sum(axis=0) + 63
            out.append(f"#{colour}{bytes(columns.astype(np.uint8)).decode('ascii')}$")
        out.append("-")
    return "".join(out) + "\x1b\\"
