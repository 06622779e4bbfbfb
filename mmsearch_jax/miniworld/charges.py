"""The figures on a flag: stars, discs, crescents, shields, beasts. One function paints each.

Knows nothing of fields, palettes or how a design is chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Charge:
    """A figure on the field. `x`, `y` is its centre and `size` its radius, in units of the flag's width and height."""

    shape: str
    x: float
    y: float
    size: float
    colour: Colour
    second: Colour
    points: int = 5
    turn: float = 0.0
    seed: int = 0


def _star(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    inner = 0.4 if charge.points <= 5 else 0.55
    pen.polygon(_spikes(x, y, r, r * inner, charge.points, charge.turn), charge.colour)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), charge.colour)


def _ring(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), charge.second, charge.colour, max(3, int(r * 0.18)))
    pen.polygon(_spikes(x, y, r * 0.6, r * 0.28, charge.points + 1, charge.turn), charge.colour)


def _crescent(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    angles = np.linspace(0.62, 2 * np.pi - 0.62, 40)
    outer = [(x + r * np.cos(a), y + r * np.sin(a)) for a in angles]
    tip = np.sin(0.62) * r
    reach = 0.82 * r
    inner_angle = np.arcsin(tip / reach)
    centre = x + r * np.cos(0.62) - reach * np.cos(inner_angle)
    inner = [
        (centre + reach * np.cos(a), y + reach * np.sin(a))
        for a in np.linspace(2 * np.pi - inner_angle, inner_angle, 40)
    ]
    pen.polygon(outer + inner, charge.colour)
    if charge.points != 4:
        pen.polygon(_spikes(x + r * 0.75, y, r * 0.42, r * 0.17, charge.points, charge.turn - 0.3), charge.colour)


def _sun(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    pen.polygon(_spikes(x, y, r, r * 0.6, charge.points * 3, charge.turn), charge.colour)
    inner = r * 0.5
    pen.ellipse((x - inner, y - inner, x + inner, y + inner), charge.second if charge.points > 6 else charge.colour)


def _plus(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    arm = r * (0.2 + 0.03 * charge.points)
    pen.rectangle((x - r, y - arm, x + r, y + arm), charge.colour)
    pen.rectangle((x - arm, y - r, x + arm, y + r), charge.colour)


def _diamond_charge(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    pen.polygon([(x - r * 0.7, y), (x, y - r), (x + r * 0.7, y), (x, y + r)], charge.colour)


def _shield(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    for scale, colour in ((1.0, charge.colour), (0.86, charge.second)):
        s = r * scale
        curve = [(x + s * 0.8 * np.cos(t), y + s * np.sin(t)) for t in np.linspace(0, np.pi, 24)]
        pen.polygon([(x - s * 0.8, y - s * 0.85), (x + s * 0.8, y - s * 0.85), *curve], colour)
    _crest(pen, x, y, r * 0.6, charge)


def _crest(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    """A mirrored figure with many corners; from a distance it looks like an animal, a plant or a coat of arms."""
    rng = np.random.default_rng(charge.seed)
    for part in range(int(rng.integers(1, 4))):
        angles = np.sort(rng.uniform(-np.pi / 2, np.pi / 2, int(rng.integers(6, 13))))
        reach = r * rng.uniform(0.25, 1.0, len(angles)) * (1.0 if part == 0 else 0.6)
        right = [(x + d * np.cos(a), y + d * np.sin(a)) for d, a in zip(reach, angles, strict=True)]
        left = [(2 * x - px, py) for px, py in reversed(right)]
        pen.polygon([(x, y - r * 0.9), *right, (x, y + r * 0.9), *left], charge.second if part == 1 else charge.colour)


def _beast(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, charge: Charge) -> None:
    """A figure without symmetry: blobs and limbs."""
    rng = np.random.default_rng(charge.seed)
    for _ in range(int(rng.integers(4, 9))):
        px, py = x + float(rng.uniform(-0.6, 0.6)) * r, y + float(rng.uniform(-0.6, 0.6)) * r
        a, b = rng.uniform(0.12, 0.45, 2) * r
        pen.ellipse((px - a, py - b, px + a, py + b), charge.colour)
    for _ in range(int(rng.integers(2, 6))):
        ends = rng.uniform(-1, 1, (2, 2)) * r
        pen.line(
            [(x + ends[0, 0], y + ends[0, 1]), (x + ends[1, 0] * 0.5, y + ends[1, 1] * 0.5)],
            charge.colour,
            max(3, int(r * 0.12)),
        )


SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, float, float, float, Charge], None]] = {
    "star": _star,
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "sun": _sun,
    "plus": _plus,
    "diamond": _diamond_charge,
    "shield": _shield,
    "crest": _crest,
    "beast": _beast,
}
"""Shape -> its painting function, called with pen, centre x and y, radius (pixels) and charge."""
WEIGHTS = {
    "star": 4.0,
    "disc": 1.6,
    "ring": 1.0,
    "crescent": 1.5,
    "sun": 1.2,
    "plus": 0.8,
    "diamond": 0.5,
    "shield": 1.6,
    "crest": 1.8,
    "beast": 1.2,
}
"""Relative frequency of each shape."""


def _spikes(x: float, y: float, outer: float, inner: float, points: int, turn: float) -> list[Point]:
    angles = turn - np.pi / 2 + np.arange(2 * points) * np.pi / points
    reach = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return [(float(x + d * np.cos(a)), float(y + d * np.sin(a))) for d, a in zip(reach, angles, strict=True)]
