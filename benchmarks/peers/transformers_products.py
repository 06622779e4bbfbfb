"""A float32 matrix product by torch, in its own environment: python transformers_products.py WORK.json."""

import json
import sys
from pathlib import Path

import measuring
import numpy as np
import torch


def main() -> None:
    """Writes the product to a file, and prints the seconds of each repeat as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(work["threads"])
    with np.load(work["factors"]) as factors:
        a, b = torch.tensor(factors["a"]), torch.tensor(factors["b"])
    seconds = measuring.seconds(lambda: a @ b, work["repeats"])
    np.save(work["product"], (a @ b).numpy())
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
