"""Prompts and observations into transformers' KV cache, in its own environment: python transformers_prefill.py WORK.json."""

import json
import sys
import time
from pathlib import Path

import torch
import transformers
import transformers_model


def main() -> None:
    """Prints the seconds of each repeat by kind, the token ids fed, and the best next tokens of each row as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    model = transformers_model.load(work)
    kinds = ("prompts", "observations")
    ids = {kind: torch.tensor(work[kind], device=transformers_model.DEVICE) for kind in kinds}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with torch.inference_mode():
        for _ in range(work["repeats"] + 1):
            cache = transformers.DynamicCache(config=model.config.get_text_config())
            for kind in kinds:
                began = time.perf_counter()
                hidden = model.model(input_ids=ids[kind], past_key_values=cache, use_cache=True).last_hidden_state
                transformers_model.wait(hidden)
                seconds[kind].append(time.perf_counter() - began)
        logits = model.lm_head(hidden[:, -1]).float()
        logits[:, work["suppress"]] = -torch.inf
    assert cache.get_seq_length() == sum(ids[kind].shape[1] for kind in kinds)
    print(
        json.dumps(
            {
                # The first is the warm-up.
                "seconds": {kind: times[1:] for kind, times in seconds.items()},
                "best": logits.argmax(-1).tolist(),
                "tokens": {kind: ids[kind].numel() for kind in kinds},
                "version": transformers_model.VERSION,
            }
        )
    )


if __name__ == "__main__":
    main()
