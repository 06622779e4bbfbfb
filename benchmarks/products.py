"""Plain float32 matrix products, JAX's on this CPU against torch's: python -m benchmarks.products [--quick] [--json FILE].

No code of this project runs: it is by this much that ratios against torch on a CPU may differ from 1 for reasons that are not
ours, since most of the time goes into products of these shapes. Equal threads; the products must agree.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks import harness
from benchmarks.peers import run_peer
from benchmarks.table import Measured, command_line, faster, report

SHAPES = {
    "decoder's MLP, up": (4096, 512, 1408), "decoder's MLP, down": (4096, 1408, 512), "tower's MLP, up": (16384, 320, 864),
    "tower's MLP, down": (16384, 864, 320),
}  # fmt: skip
"""Rows, inner dim and columns in `harness.SMALL`."""
TOLERANCE = 1e-3


def main() -> None:
    """Runs both sides and prints the ratios."""
    options = command_line("Matrix products of JAX and torch.", "few repeats").parse_args()
    repeats = 3 if options.quick else 20
    rows: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rng = np.random.default_rng(0)
        for name, (m, k, n) in SHAPES.items():
            a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
            np.savez(folder / "factors.npz", a=a, b=b)
            work = {
                "factors": str(folder / "factors.npz"), "product": str(folder / "product.npy"), "threads": os.cpu_count(),
                "repeats": repeats,
            }  # fmt: skip
            (folder / "work.json").write_text(json.dumps(work))
            peer = run_peer("transformers", "transformers_products.py", folder / "work.json")
            left, right, product = jax.device_put(a), jax.device_put(b), jax.jit(lambda a, b: a @ b)
            times = harness.seconds(lambda: product(left, right), repeats)  # noqa: B023 (called in this turn of the loop)
            harness.same(name, np.asarray(product(left, right)), np.load(work["product"]), TOLERANCE)
            found = faster(times, peer["seconds"], 0)
            # What another library's products take is no aim of ours.
            rows[f"product, {name}"] = found._replace(aim="")
            print(f"{name}: {2 * m * k * n / min(times) / 1e9:.0f} GFLOP/s at best", flush=True)
    report(rows, options.json)


if __name__ == "__main__":
    main()
