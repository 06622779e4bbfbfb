"""SFT steps by transformers, torch and peft, in their own environment: python transformers_sft.py WORK.json."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import peft
import torch
import transformers


def padded(file: str, grid: list[int], pad: int = 2) -> dict[str, torch.Tensor]:
    """The sequences of a file as a usual trainer's batch: padded to the longest."""
    arrays = np.load(file)
    count = sum(name.startswith("ids") for name in arrays)
    ids = [arrays[f"ids{i}"] for i in range(count)]
    longest = max(map(len, ids))
    batch = {
        "input_ids": np.full((count, longest), pad),
        "attention_mask": np.zeros((count, longest), int),
        "labels": np.full((count, longest), -100),
    }
    for i, own in enumerate(ids):
        batch["input_ids"][i, : len(own)] = own
        batch["attention_mask"][i, : len(own)] = 1
        batch["labels"][i, : len(own)] = np.where(arrays[f"weights{i}"] > 0, own, -100)
    patches = np.concatenate([arrays[f"patches{i}"] for i in range(count)])
    made = {name: torch.tensor(values) for name, values in batch.items()}
    made["pixel_values"] = torch.tensor(patches)
    made["image_grid_thw"] = torch.tensor([grid] * (len(patches) // (grid[1] * grid[2])))
    # Newer processors tell images from text for M-RoPE.
    made["mm_token_type_ids"] = (made["input_ids"] == 5).int()
    return made


def run(work: dict, files: list[str]) -> dict[str, list[float]]:
    """Losses and seconds of an AdamW step from each file."""
    base = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(work["base"], dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, work["adapter"], is_trainable=True).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=work["learning_rate"], betas=(0.9, 0.999), weight_decay=0.0)
    losses, seconds = [], []
    for number, batch in enumerate([padded(files[0], work["grid"])] + [padded(file, work["grid"]) for file in files]):
        began = time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        if number:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        # The first is the warm-up, and changes nothing.
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    return {"losses": losses[1:], "seconds": seconds[1:]}


def main() -> None:
    """Prints losses and seconds by kind of batches as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(work["threads"])
    version = f"transformers {transformers.__version__}, torch {torch.__version__}, peft {peft.__version__}"
    found = {kind: run(work, work[kind]) for kind in ("equal", "mixed")}
    what = {name: {kind: each[name] for kind, each in found.items()} for name in ("losses", "seconds")}
    print(json.dumps({"version": version, **what}))


if __name__ == "__main__":
    main()
