"""Plain float32 matrix products, JAX's on this CPU against torch's: python -m benchmarks.products [--quick] [--json FILE].

No code of this project runs. Most of the time goes into products of these shapes, so these ratios show how far ratios against
torch on a CPU can differ from 1 because of XLA alone. Equal threads; the products must agree.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks import harness
from benchmarks.peers import Peer
from benchmarks.table import command_line, faster, report

SHAPES = {
    "decoder's MLP, up": (4096, 512, 1408),
    "decoder's MLP, down": (4096, 1408, 512),
    "tower's MLP, up": (16384, 320, 864),
    "tower's MLP, down": (16384, 864, 320),
}
"""Rows, inner dim and columns in `harness.SMALL`."""
TOLERANCE = 1e-3


def main() -> None:
    """Runs both sides in turns and prints the ratios."""
    options = command_line("Matrix products of JAX and torch.", "few repeats").parse_args()
    turns, repeats = (1, 3) if options.quick else (20, 5)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) / "work.json"
        files = write_factors(Path(temporary))
        work.write_text(json.dumps({"factors": files, "threads": os.cpu_count(), "repeats": repeats}))
        ours, theirs = harness.both(
            turns,
            lambda: {name: product_seconds(name, file, repeats) for name, file in files.items()},
            Peer("transformers", "transformers_products.py", work),
        )
        for name, file in files.items():
            with np.load(file) as factors:
                harness.same(name, np.asarray(_product(**factors)), np.load(Path(file).with_suffix(".npy")), TOLERANCE)
    # The speed of another library's products is not an aim of this project.
    report(
        {f"product, {name}": faster(own, theirs[name], 0)._replace(aim="") for name, own in ours.items()}, options.json
    )


def write_factors(folder: Path) -> dict[str, str]:
    """The file of each product's factors, a and b."""
    rng = np.random.default_rng(0)
    files = {name: str(folder / f"{i}.npz") for i, name in enumerate(SHAPES)}
    for name, (m, k, n) in SHAPES.items():
        np.savez(files[name], a=rng.standard_normal((m, k), np.float32), b=rng.standard_normal((k, n), np.float32))
    return files


def product_seconds(name: str, file: str, repeats: int) -> list[float]:
    """Of JAX's products of a file's factors."""
    with np.load(file) as factors:
        a, b = jax.device_put(factors["a"]), jax.device_put(factors["b"])
    times = harness.seconds(lambda: _product(a, b), repeats)
    m, k, n = SHAPES[name]
    print(f"{name}: {2 * m * k * n / min(times) / 1e9:.0f} GFLOP/s at best", flush=True)
    return times


@jax.jit
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return a @ b


if __name__ == "__main__":
    main()
