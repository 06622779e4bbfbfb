"""Measures image search: recall@1 and @5 of a jittered JPEG crop of a scene, against the index of the other
artwork.

    python -m benchmarks.image_retrieval [--json FILE] [--repeats 3]

Each entity of the real world stands once per repeat in a scene with one to three others, in its scene
artwork; its gold box is moved by up to `--jitter` of its size on each side, cut out, and saved as a JPEG.
Entities with equal artwork count as one.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.table import Measured, command_line, report
from mmsearch_jax.miniworld import worlds
from mmsearch_jax.miniworld.entities import Entity
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.miniworld.scenes import SIZE, Box
from tools_server.image_index import ImageIndex

NUM_OTHERS = (1, 2, 3)


def measure(
    world: worlds.World, index: ImageIndex, repeats: int = 1, jitter: float = 0.08, quality: int = 70, seed: int = 0
) -> dict[str, Any]:
    """Figures over all entities and by kind, and the mean time of one search in ms."""
    alias_of = [entity.alias_of for entity in world.entities]
    title_of = {picture.file: alias for picture, alias in zip(index.pictures, alias_of, strict=True)}
    ranks: dict[str, list[int]] = {}
    spent = 0.0
    for entity, crop in crops(world, repeats, jitter, quality, seed):
        started = time.perf_counter()
        hits = index.search(crop, 5)
        spent += time.perf_counter() - started
        found = [title_of[picture.file] for picture, _ in hits]
        ranks.setdefault(entity.kind, []).append(found.index(entity.alias_of) if entity.alias_of in found else 5)
    everything = [rank for kind in ranks.values() for rank in kind]
    return {
        "all": _recalls(everything),
        **{kind: _recalls(values) for kind, values in sorted(ranks.items())},
        "search_ms": round(1e3 * spent / len(everything), 2),
        "num_indexed": len(index.pictures),
        "settings": {"repeats": repeats, "jitter": jitter, "jpeg_quality": quality, "seed": seed},
    }


def crops(
    world: worlds.World, repeats: int, jitter: float, quality: int, seed: int
) -> Iterator[tuple[Entity, Image.Image]]:
    """Each entity, cut from a scene by a box that is a little off."""
    for repeat in range(repeats):
        for number, entity in enumerate(world.entities):
            rng = np.random.default_rng([seed, repeat, number])
            others = rng.choice(len(world.entities) - 1, int(rng.choice(NUM_OTHERS)), replace=False)
            members = [entity, *(world.entities[i + (i >= number)] for i in others.tolist())]
            scene, boxes = worlds.mixed_scene(world, rng, members)
            out = io.BytesIO()
            scene.crop(_moved(boxes[0], jitter, rng)).save(out, "JPEG", quality=quality)
            yield entity, Image.open(out).convert("RGB")


def _moved(box: Box, jitter: float, rng: np.random.Generator) -> Box:
    x0, y0, x1, y1 = box
    shift = rng.uniform(-jitter, jitter, 4) * [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
    moved = np.rint(np.array(box) + shift).astype(int)
    limits = [SIZE[0], SIZE[1], SIZE[0], SIZE[1]]
    left, top, right, bottom = (int(v) for v in np.clip(moved, 0, limits))
    return left, top, right, bottom


def _recalls(ranks: Sequence[int]) -> dict[str, float]:
    values = np.array(ranks)
    return {
        "n": len(values),
        "recall@1": round(float((values < 1).mean()), 4),
        "recall@5": round(float((values < 5).mean()), 4),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = command_line("Image search: recall@1 and @5 of jittered crops of scenes.", "one scene per entity")
    parser.add_argument("--repeats", type=int, default=3, help="scenes per entity")
    parser.add_argument("--jitter", type=float, default=0.08, help="how far each side of the box is off, of its length")
    parser.add_argument("--quality", type=int, default=70, help="JPEG quality of the crop")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    world = RealWorld()
    with tempfile.TemporaryDirectory() as folder:
        worlds.write_corpus(world, Path(folder))
        started = time.perf_counter()
        index = ImageIndex.from_corpus(Path(folder))
        build_s = round(time.perf_counter() - started, 2)
        repeats = 1 if options.quick else options.repeats
        figures = measure(world, index, repeats, options.jitter, options.quality, options.seed)
    figures["build_s"] = build_s
    print(f"{'kind':10} {'n':>5} {'recall@1':>9} {'recall@5':>9}")
    for kind in ("all", "flag", "monument", "animal"):
        row = figures[kind]
        print(f"{kind:10} {row['n']:5d} {row['recall@1']:9.3f} {row['recall@5']:9.3f}")
    print(f"{figures['num_indexed']} pictures indexed in {build_s} s; {figures['search_ms']} ms a search")
    found = figures["all"]["recall@1"]
    rows = {"image search of a crop, recall@1": Measured(found, "", "at least 0.75", found >= 0.75)}
    report(rows | {"image search, a search": Measured(figures["search_ms"], "ms", "", True)}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
