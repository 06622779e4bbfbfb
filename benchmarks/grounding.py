"""Measures grounding: how well the region found for a referring expression covers the gold box (IoU).

    python -m benchmarks.grounding [--json FILE] [--scenes 300] [--world real|generated]

Expressions are written from the gold boxes of composed scenes, in five families: kind and place ("the flag on
the left"), place alone, kind alone (where only one is of that kind), colour ("the red flag", where no other
picture has much of it), and size. A region that is not found counts as IoU 0.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.table import Measured, command_line, report
from mmsearch_jax.miniworld import colours, scenes, worlds
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.miniworld.sight import Scene
from tools_server.toy_vision.grounding import ground

FAMILIES = ("kind and place", "place", "kind", "colour", "size")


def measure(world: worlds.World, num_scenes: int, seed: int = 0, quality: int = 90) -> dict[str, Any]:
    """Mean IoU and the share with IoU >= .5, over all and by family; and the mean time of one grounding in
    ms."""
    overlaps: dict[str, list[float]] = {family: [] for family in FAMILIES}
    spent, count = 0.0, 0
    for number in range(num_scenes):
        scene = worlds.compose_scene(world, np.random.default_rng([seed, number]))
        out = io.BytesIO()
        scene.image.save(out, "JPEG", quality=quality)
        image = Image.open(out).convert("RGB")
        for family, expression, target in expressions(scene):
            started = time.perf_counter()
            found = ground(image, expression)
            spent, count = spent + time.perf_counter() - started, count + 1
            overlaps[family].append(0.0 if found.box is None else iou(found.box, scene.boxes[target]))
    everything = [value for values in overlaps.values() for value in values]
    return {
        "all": _summary(everything),
        **{family: _summary(values) for family, values in overlaps.items() if values},
        "ground_ms": round(1e3 * spent / max(count, 1), 2),
        "settings": {"scenes": num_scenes, "jpeg_quality": quality, "seed": seed},
    }


def expressions(scene: Scene) -> list[tuple[str, str, int]]:
    """(family, expression, index of its picture) for all unambiguous expressions about a scene."""
    found = []
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in scene.boxes]
    for i, kind in enumerate(scene.kinds):
        if len(scene.boxes) == 1:
            break
        phrase = scenes.spatial_phrase(scene.boxes, i)
        if phrase:
            found += [("kind and place", f"the {kind} {phrase}", i), ("place", f"the picture {phrase}", i)]
        if [k == "flag" for k in scene.kinds].count(kind == "flag") == 1:
            found.append(("kind", "the flag" if kind == "flag" else f"the photo of the {kind}", i))
        name, share = colours.dominant_colour(scene.image, scene.boxes[i])
        rivals = [_share(scene, j, name) for j in range(len(scene.boxes)) if j != i]
        if kind == "flag" and share > 0.5 and max(rivals) < 0.2:
            found.append(("colour", f"the {name} flag", i))
        others = [area for j, area in enumerate(areas) if j != i]
        if areas[i] > 1.3 * max(others) or 1.3 * areas[i] < min(others):
            found.append(("size", f"the {'largest' if areas[i] > max(others) else 'smallest'} picture", i))
    return found


def _share(scene: Scene, i: int, name: str) -> float:
    indices = colours.colour_indices(np.asarray(scene.image.crop(scene.boxes[i])))
    return float((indices == colours.NAMES.index(name)).mean())


def iou(a: scenes.Box, b: scenes.Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (both - shared)


def _summary(overlaps: Sequence[float]) -> dict[str, float]:
    values = np.array(overlaps)
    return {
        "n": len(values),
        "mean_iou": round(float(values.mean()), 4),
        "accuracy@.5": round(float((values >= 0.5).mean()), 4),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = command_line("Grounding: IoU of the region found for an expression with its gold box.", "60 scenes")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--world", choices=("real", "generated"), default="real")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    world = RealWorld() if options.world == "real" else GeneratedWorld(100, seed=options.seed)
    figures = measure(world, 60 if options.quick else options.scenes, options.seed)
    print(f"{'expression':16} {'n':>5} {'mean IoU':>9} {'IoU>=.5':>8}")
    for family in ("all", *FAMILIES):
        if family in figures:
            row = figures[family]
            print(f"{family:16} {row['n']:5d} {row['mean_iou']:9.3f} {row['accuracy@.5']:8.3f}")
    print(f"one grounding takes {figures['ground_ms']} ms")
    rows = {"grounding, mean IoU": Measured(figures["all"]["mean_iou"], "", "", True)}
    report(rows | {"grounding, an expression": Measured(figures["ground_ms"], "ms", "", True)}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
