"""The first token of a policy by transformers, from nothing: python transformers_first_token.py WORK.json."""

import json
import sys
from pathlib import Path

import tokenizers
import torch
import transformers


def main() -> None:
    """Prints the token's id."""
    work = json.loads(Path(sys.argv[1]).read_text())
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(work["folder"]) / "tokenizer.json"))
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(work["folder"], dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer.encode(work["prompt"], add_special_tokens=False).ids])
    settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=1, pad_token_id=0)
    with torch.inference_mode():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    print(made[0, -1].item(), flush=True)


if __name__ == "__main__":
    main()
