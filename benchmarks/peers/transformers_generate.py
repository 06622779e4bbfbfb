"""Greedy decoding by transformers' `generate`, in its own environment: python transformers_generate.py WORK.json."""

import json
import sys
import time
from pathlib import Path

import torch
import transformers
import transformers_model


def main() -> None:
    """Prints the new tokens and the seconds of each repeat as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    model = transformers_model.load(work)
    longest = max(map(len, work["prompts"]))
    # Batched prompts are padded on the left.
    padded = [[work["pad"]] * (longest - len(prompt)) + prompt for prompt in work["prompts"]]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in work["prompts"]]
    settings = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=work["new_tokens"],
        suppress_tokens=work["suppress"],
        eos_token_id=work["stop"],
        pad_token_id=work["pad"],
    )
    inputs = {
        "input_ids": torch.tensor(padded, device=transformers_model.DEVICE),
        "attention_mask": torch.tensor(mask, device=transformers_model.DEVICE),
    }
    seconds = []
    for _ in range(work["repeats"] + 1):
        began = time.perf_counter()
        with torch.inference_mode():
            made = model.generate(**inputs, generation_config=settings)
        transformers_model.wait(made)
        seconds.append(time.perf_counter() - began)
    tokens = made[:, longest:].tolist()
    # The first is the warm-up.
    print(json.dumps({"tokens": tokens, "seconds": seconds[1:], "version": transformers_model.VERSION}))


if __name__ == "__main__":
    main()
