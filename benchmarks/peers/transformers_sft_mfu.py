"""LoRA SFT steps of a random Qwen2.5-VL in bf16 by transformers, torch and peft: python transformers_sft_mfu.py WORK.json.

On the GPU where there is one.
"""

import json
import sys
import time
from pathlib import Path

import peft
import torch
import transformers
from transformers_sft import padded


def main() -> None:
    """Prints the seconds of each step and the most memory that was used as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = transformers.Qwen2_5_VLConfig(**{k: v for k, v in work["config"].items() if k != "architectures"})
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        base = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # The language model's linear modules, not the vision tower's of the same names.
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    lora = peft.LoraConfig(r=work["rank"], lora_alpha=work["alpha"], target_modules=targets)
    model = peft.get_peft_model(base, lora).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=work["learning_rate"], weight_decay=0.0)
    seconds = []
    for file in [work["files"][0], *work["files"]]:
        began = time.perf_counter()
        batch = {name: value.to(device) for name, value in padded(file, work["grid"]).items()}
        batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
        batch["mm_token_type_ids"] = (batch["input_ids"] == work["image_token_id"]).int()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    version = f"transformers {transformers.__version__}, torch {torch.__version__}, peft {peft.__version__}"
    # The first is the warm-up.
    print(json.dumps({"seconds": seconds[1:], "memory": memory, "version": version}))


if __name__ == "__main__":
    main()
