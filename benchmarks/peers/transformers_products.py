"""Float32 matrix products by torch, in its own environment: python transformers_products.py WORK.json."""

import json
import sys
from pathlib import Path

import measuring
import numpy as np
import torch


def main() -> None:
    """Writes each product to a file, and prints the seconds of each repeat by name as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(work["threads"])
    times = {}
    for name, file in work["factors"].items():
        with np.load(file) as factors:
            a, b = torch.tensor(factors["a"]), torch.tensor(factors["b"])
        times[name] = measuring.seconds(lambda: a @ b, work["repeats"])  # noqa: B023 (called in this turn of the loop)
        np.save(Path(file).with_suffix(".npy"), (a @ b).numpy())
    print(json.dumps({"seconds": times}))


if __name__ == "__main__":
    main()
