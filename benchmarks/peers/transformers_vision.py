"""Image features by transformers' vision tower, in its own environment: python transformers_vision.py WORK.json."""

import json
import sys
from pathlib import Path

import measuring
import numpy as np
import torch
import transformers_model


def main() -> None:
    """Writes the features to a file, and prints the seconds of each repeat and the number of patches as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    model = transformers_model.load(work)
    with np.load(work["images"]) as arrays:
        pixels, grids = torch.tensor(arrays["pixels"]).to(model.dtype), torch.tensor(arrays["grids"])

    def encode() -> torch.Tensor:
        with torch.inference_mode():
            # From the host and back to it, as ours.
            found = model.model.get_image_features(
                pixels.to(transformers_model.DEVICE), grids.to(transformers_model.DEVICE)
            )
            return torch.cat(list(getattr(found, "pooler_output", found))).float().cpu()

    seconds = measuring.seconds(encode, work["repeats"])
    np.save(work["features"], encode().numpy())
    print(json.dumps({"seconds": seconds, "patches": len(pixels), "version": transformers_model.VERSION}))


if __name__ == "__main__":
    main()
