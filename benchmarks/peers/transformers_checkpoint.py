"""Training state and policy to disk and back by torch and transformers: python transformers_checkpoint.py WORK.json."""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
import transformers
import transformers_model
from measuring import seconds


def main() -> None:
    """Prints the seconds of each repeat by kind, and the bytes of policy and state, as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    model = transformers_model.load(work)
    scratch = Path(work["scratch"])
    scratch.mkdir(exist_ok=True)
    weights = dict(model.named_parameters())
    # Weights and both moments, as AdamW's state dict holds them; every tensor has memory of its own.
    state = {part: {name: weight.detach() + i for name, weight in weights.items()} for i, part in enumerate("pmv")}
    size = sum(weight.nbytes for weight in weights.values())

    def empty() -> None:
        shutil.rmtree(scratch)
        scratch.mkdir()
        # Pending writes of earlier calls would slow the next one.
        os.sync()

    def load_policy() -> float:
        found = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(work["folder"], dtype=torch.float32)
        # It maps the file: a weight is read on first access.
        return sum(weight.sum().item() for weight in found.parameters())

    times = {
        "save": seconds(lambda: torch.save(state, scratch / "state.pt"), work["repeats"], prepare=empty),
        "restore": seconds(lambda: torch.load(scratch / "state.pt"), work["repeats"], prepare=os.sync),
        "import": seconds(load_policy, work["repeats"]),
        "export": seconds(lambda: model.save_pretrained(scratch / "policy"), work["repeats"], prepare=os.sync),
    }
    found = torch.load(scratch / "state.pt")
    assert all(torch.equal(found[part][name], state[part][name]) for part in state for name in weights)
    print(
        json.dumps(
            {
                "seconds": times,
                "policy_bytes": size,
                "version": transformers_model.VERSION,
                "state_bytes": sum(tensor.nbytes for part in found.values() for tensor in part.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
