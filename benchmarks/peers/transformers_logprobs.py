"""Log-probs of given tokens by transformers and torch, in their own environment: python transformers_logprobs.py WORK.json."""

import json
import sys
from pathlib import Path

import measuring
import numpy as np
import torch
import transformers_model
from transformers_sft import padded


def main() -> None:
    """Writes the log-probs to a file, and prints seconds and memory as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    model = transformers_model.load(work)
    batch = {name: value.to(transformers_model.DEVICE) for name, value in padded(work["file"], work["grid"]).items()}
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    batch["mm_token_type_ids"] = (batch["input_ids"] == work["image_token_id"]).int()
    del batch["labels"]

    def score() -> torch.Tensor:
        with torch.inference_mode():
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
            return torch.log_softmax(logits, -1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]

    seconds = measuring.seconds(score, work["repeats"], transformers_model.wait)
    memory = transformers_model.memory(score)
    np.save(work["scores"], score().cpu().numpy())
    print(
        json.dumps(
            {
                "seconds": seconds,
                "memory": memory,
                "tokens": batch["input_ids"].numel(),
                "version": transformers_model.VERSION,
            }
        )
    )


if __name__ == "__main__":
    main()
