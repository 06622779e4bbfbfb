"""Flags of invented lands: a design (a field of coloured parts, and charges on it) and its painting.

A design is data, so it can be painted in two artworks. Knows nothing of worlds, names or scenes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from mmsearch_jax.miniworld import charges
from mmsearch_jax.miniworld.charges import Charge, Colour, Point

PALETTE: dict[str, tuple[float, tuple[Colour, ...]]] = {
    "red": (3.2, ((206, 17, 38), (222, 32, 16), (180, 10, 40), (236, 28, 36))),
    "white": (2.6, ((255, 255, 255), (250, 250, 246))),
    "blue": (2.4, ((0, 56, 168), (0, 35, 149), (0, 20, 100), (20, 90, 190), (65, 143, 222), (108, 172, 228))),
    "green": (2.0, ((0, 122, 61), (0, 150, 57), (30, 90, 50), (20, 130, 30), (60, 170, 60))),
    "yellow": (1.8, ((252, 209, 22), (255, 222, 0), (250, 230, 60), (240, 190, 20))),
    "black": (1.1, ((0, 0, 0), (16, 16, 18))),
    "orange": (0.5, ((255, 136, 30), (240, 120, 10))),
    "purple": (0.15, ((110, 40, 130), (130, 60, 160))),
    "brown": (0.12, ((120, 70, 20), (110, 60, 40))),
    "grey": (0.1, ((140, 140, 145),)),
}
"""Colour name -> (weight, shades); the weights are roughly the frequencies on real flags."""


@dataclasses.dataclass(frozen=True)
class Design:
    """A flag: a field (its division, colours and one proportion), an optional part over it, and charges."""

    field: str
    colours: tuple[Colour, ...]
    ratio: float
    over: str = ""
    over_colours: tuple[Colour, ...] = ()
    over_ratio: float = 0.4
    charges: tuple[Charge, ...] = ()


def invent(rng: np.random.Generator) -> Design:
    """A random design with flag-like colours; adjacent parts have different colour names."""
    colours = _colours(rng, 6)
    field = _choose(rng, _FIELD_WEIGHTS)
    over = _choose(rng, _OVER_WEIGHTS) if field in _PLAIN_FIELDS else ""
    design = Design(field, colours, float(rng.uniform(0.2, 0.4)), over, colours[3:6], float(rng.uniform(0.33, 0.5)))
    chance = 0.95 if field == "plain" and not over else 0.6
    return dataclasses.replace(design, charges=_charges(rng, design)) if rng.random() < chance else design


def redraw(design: Design, rng: np.random.Generator) -> Design:
    """The same design with other shades and proportions, and charges that are slightly moved, turned and resized."""

    shifts = {}

    def shade(colour: Colour) -> Colour:
        if colour not in shifts:
            light = rng.normal(0, 12)
            shifts[colour] = tuple(int(c) for c in np.clip(np.array(colour) + light + rng.normal(0, 12, 3), 0, 255))
        return shifts[colour]

    figures = tuple(
        dataclasses.replace(
            charge,
            x=charge.x + float(rng.normal(0, 0.008)),
            y=charge.y + float(rng.normal(0, 0.008)),
            size=charge.size * float(rng.uniform(0.85, 1.15)),
            turn=charge.turn + float(rng.normal(0, 0.05)),
            colour=shade(charge.colour),
            second=shade(charge.second),
        )
        for charge in design.charges
    )
    return dataclasses.replace(
        design,
        colours=tuple(shade(c) for c in design.colours),
        over_colours=tuple(shade(c) for c in design.over_colours),
        ratio=design.ratio * float(rng.uniform(0.88, 1.12)),
        over_ratio=design.over_ratio * float(rng.uniform(0.92, 1.08)),
        charges=figures,
    )


def render(design: Design, size: tuple[int, int]) -> Image.Image:
    """The painted design, RGB of the given width and height. It is drawn at twice the size for smooth edges."""
    width, height = size[0] * 2, size[1] * 2
    image = Image.new("RGB", (width, height), design.colours[0])
    pen = ImageDraw.Draw(image)
    _FIELDS[design.field](pen, width, height, design.colours, design.ratio)
    if design.over:
        _FIELDS[design.over](pen, width, height, design.over_colours, design.over_ratio)
    for charge in design.charges:
        charges.SHAPES[charge.shape](pen, charge.x * width, charge.y * height, charge.size * height, charge)
    return image.reduce(2)


# --- fields: each paints over the whole flag (or, as an "over", over a part of it)


def _plain(pen: ImageDraw.ImageDraw, w: int, h: int, c: tuple[Colour, ...], ratio: float) -> None:
    pen.rectangle((0, 0, w, h), c[0])


def _bands(weights: Callable[[float], list[float]], upright: bool, order: tuple[int, ...]):
    def paint(pen: ImageDraw.ImageDraw, w: int, h: int, c: tuple[Colour, ...], ratio: float) -> None:
        parts = np.cumsum([0.0, *weights(ratio)])
        edges = parts / parts[-1]
        for i, (start, end) in enumerate(itertools.pairwise(edges)):
            box = (start * w, 0, end * w, h) if upright else (0, start * h, w, end * h)
            pen.rectangle(box, c[order[i % len(order)]])

    return paint


def _cross(x: float, diagonal: bool = False):
    def paint(pen: ImageDraw.ImageDraw, w: int, h: int, c: tuple[Colour, ...], ratio: float) -> None:
        pen.rectangle((0, 0, w, h), c[0])
        for colour, thick in ((c[1], ratio * 0.75), (c[2], ratio * 0.35)):
            half = thick * h / 2
            if diagonal:
                for a, b in (((0, 0), (w, h)), ((0, h), (w, 0))):
                    pen.line((a, b), colour, int(half * 2))
            else:
                pen.rectangle((x * w - half, 0, x * w + half, h), colour)
                pen.rectangle((0, h / 2 - half, w, h / 2 + half), colour)

    return paint


def _polygons(build: Callable[[float, float, float], list[tuple[int, list[Point]]]], ground: bool = True):
    def paint(pen: ImageDraw.ImageDraw, w: int, h: int, c: tuple[Colour, ...], ratio: float) -> None:
        if ground:
            pen.rectangle((0, 0, w, h), c[0])
        for colour, points in build(w, h, ratio):
            pen.polygon(points, c[colour])

    return paint


def _hoist_triangle(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    return [(0, [(0, 0), (w * r * 1.1, h / 2), (0, h)])]


def _double_triangle(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    return [
        (1, [(0, 0), (w * r * 1.2, h / 2), (0, h)]),
        (0, [(0, h * 0.12), (w * (r * 1.2 - 0.1), h / 2), (0, h * 0.88)]),
    ]


def _band_across(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    t = h * r * 0.5
    return [(1, [(w, 0), (w, h), (0, h)]), (2, [(0, h - t), (0, h), (t, h), (w, t), (w, 0), (w - t, 0)])]


def _serrated(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    teeth, x = 9, w * r
    zigzag = [(x + (0.09 * w if k % 2 else 0.0), h * k / (2 * teeth)) for k in range(2 * teeth + 1)]
    return [(1, [(0.0, 0.0), *zigzag, (0.0, h)])]


def _rays(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    cx, cy, far = w / 2, h / 2, w
    turns = [2 * np.pi * k / 8 for k in range(8)]
    spread = 0.12 + r * 0.3
    return [
        (1, [(cx, cy), *((cx + far * np.cos(t + s), cy + far * np.sin(t + s)) for s in (-spread, spread))])
        for t in turns
    ]


def _quarters(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    def box(x: float, y: float) -> list[Point]:
        return [(x, y), (x + w / 2, y), (x + w / 2, y + h / 2), (x, y + h / 2)]

    return [(1, box(w / 2, 0)), (2 if r > 0.3 else 1, box(0, h / 2))]


def _diamond(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    m = 0.04 + (r - 0.2) * 0.3
    return [(1, [(w * m, h / 2), (w / 2, h * m), (w * (1 - m), h / 2), (w / 2, h * (1 - m))])]


def _border(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    m = h * r * 0.35
    return [(1, [(m, m), (w - m, m), (w - m, h - m), (m, h - m)])]


def _canton(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    return [(0, [(0, 0), (w * r, 0), (w * r, h * (r + 0.1)), (0, h * (r + 0.1))])]


def _hoist_band(w: float, h: float, r: float) -> list[tuple[int, list[Point]]]:
    return [(0, [(0, 0), (w * r * 0.75, 0), (w * r * 0.75, h), (0, h)])]


def _even(count: int) -> Callable[[float], list[float]]:
    return lambda ratio: [1.0] * count


_FIELDS: dict[str, Callable[[ImageDraw.ImageDraw, int, int, tuple[Colour, ...], float], None]] = {
    "plain": _plain,
    "two_across": _bands(_even(2), False, (0, 1)),
    "three_across": _bands(_even(3), False, (0, 1, 2)),
    "three_same": _bands(lambda r: [1, 0.6 + r * 3, 1], False, (0, 1, 0)),
    "fimbriated": _bands(lambda r: [1, r * 0.4, 1, r * 0.4, 1], False, (0, 3, 1, 3, 2)),
    "five_across": _bands(lambda r: [1, 1, 0.8 + r * 3, 1, 1], False, (0, 1, 2, 1, 0)),
    "many_across": _bands(lambda r: [1] * (9 if r < 0.3 else 13), False, (0, 1)),
    "two_upright": _bands(lambda r: [0.8 + r, 1.6 - r], True, (0, 1)),
    "three_upright": _bands(_even(3), True, (0, 1, 2)),
    "three_upright_same": _bands(lambda r: [1, 0.6 + r * 3, 1], True, (0, 1, 0)),
    "nordic": _cross(0.36),
    "cross": _cross(0.5),
    "saltire": _cross(0.5, diagonal=True),
    "band": _polygons(_band_across),
    "serrated": _polygons(_serrated),
    "rays": _polygons(_rays),
    "quarters": _polygons(_quarters),
    "diamond": _polygons(_diamond),
    "border": _polygons(_border),
    "triangle": _polygons(_hoist_triangle, ground=False),
    "double_triangle": _polygons(_double_triangle, ground=False),
    "canton": _polygons(_canton, ground=False),
    "hoist": _polygons(_hoist_band, ground=False),
}
_FIELD_WEIGHTS = {
    "plain": 5.0,
    "two_across": 2.0,
    "three_across": 5.0,
    "three_same": 2.0,
    "fimbriated": 1.4,
    "five_across": 1.2,
    "many_across": 0.9,
    "two_upright": 0.8,
    "three_upright": 3.2,
    "three_upright_same": 1.0,
    "nordic": 1.2,
    "cross": 0.7,
    "saltire": 0.7,
    "band": 1.5,
    "serrated": 0.5,
    "rays": 0.4,
    "quarters": 0.5,
    "diamond": 0.5,
    "border": 0.6,
}
_OVER_WEIGHTS = {"": 5.0, "triangle": 1.6, "double_triangle": 0.4, "canton": 1.6, "hoist": 0.9}
_PLAIN_FIELDS = ("plain", "two_across", "three_across", "three_same", "fimbriated", "five_across", "many_across")


# --- positions of charges


def _charges(rng: np.random.Generator, design: Design) -> tuple[Charge, ...]:
    """One main charge, or several small ones in a row, an arc, a ring or a cluster."""
    colour, second = _contrast(rng, design)
    place = "canton" if design.over == "canton" else "hoist" if design.over in ("triangle", "double_triangle") else ""
    place = place or _choose(rng, {"centre": 5.0, "canton": 1.2, "left": 1.0, "fly": 0.6})
    r = design.over_ratio
    x, y, room = {
        "centre": (0.5, 0.5, 0.3),
        "canton": (r / 2, (r + 0.1) / 2, 0.17),
        "left": (0.35, 0.5, 0.28),
        "hoist": (r * 0.38, 0.5, 0.14),
        "fly": (0.74, 0.5, 0.24),
    }[place]
    if place == "centre" and design.field in ("three_across", "three_upright", "fimbriated", "five_across"):
        room = 0.16
    size = room * float(rng.uniform(0.65, 1.05))
    shape = _choose(rng, charges.WEIGHTS)
    base = Charge(
        shape, x, y, size, colour, second, int(rng.choice([4, 5, 5, 5, 6, 7, 8])), 0.0, int(rng.integers(1 << 30))
    )
    if rng.random() < 0.72:
        return (base,)
    count = int(rng.integers(2, 9))
    small = dataclasses.replace(base, shape=_choose(rng, {"star": 5.0, "disc": 1.0, "diamond": 0.7}), size=size * 0.3)
    form = _choose(rng, {"row": 1.0, "ring": 1.2, "arc": 0.8, "column": 0.5})
    places = []
    for k in range(count):
        along = (k - (count - 1) / 2) / count
        angle = 2 * np.pi * k / count - np.pi / 2
        if form == "ring":
            places.append((np.cos(angle) * size * 0.75, np.sin(angle) * size))
        elif form == "arc":
            places.append(
                (
                    np.cos(np.pi + np.pi * (k + 0.5) / count) * size * 0.75,
                    np.sin(np.pi + np.pi * (k + 0.5) / count) * size,
                )
            )
        else:
            places.append((along * size * 2.2, 0.0) if form == "row" else (0.0, along * size * 2.4))
    group = tuple(dataclasses.replace(small, x=x + float(dx), y=y + float(dy)) for dx, dy in places)
    return (dataclasses.replace(base, size=size * 0.5), *group) if form == "ring" and rng.random() < 0.4 else group


# --- choices


def _choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def _colours(rng: np.random.Generator, count: int) -> tuple[Colour, ...]:
    """`count` shades of different colour names."""
    names = list(PALETTE)
    weights = np.array([PALETTE[name][0] for name in names])
    chosen = rng.choice(len(names), count, replace=False, p=weights / weights.sum())
    return tuple(_shade(rng, names[i]) for i in chosen)


def _shade(rng: np.random.Generator, name: str) -> Colour:
    shades = PALETTE[name][1]
    base = np.array(shades[int(rng.integers(len(shades)))]) + rng.normal(0, 7, 3)
    red, green, blue = (int(c) for c in np.clip(base, 0, 255))
    return red, green, blue


def _contrast(rng: np.random.Generator, design: Design) -> tuple[Colour, Colour]:
    """Two colours for a charge; the first contrasts with what lies under the charge."""
    under = np.array([*design.colours[:3], *(design.over_colours[:1] if design.over else ())], float)
    options = list(_colours(rng, 6))
    options.sort(key=lambda c: -np.abs(under - np.array(c)).sum(-1).min())
    return options[0], options[1 + int(rng.integers(3))]
