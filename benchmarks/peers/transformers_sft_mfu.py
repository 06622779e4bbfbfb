"""LoRA steps of a random Qwen2.5-VL in bf16 by transformers, torch and peft: python transformers_sft_mfu.py WORK.json.

On the GPU where there is one.
"""

import json
import sys
import time
from pathlib import Path

import peft
import torch
import transformers_model
from transformers_sft import padded


def main() -> None:
    """Prints the seconds of each step, its tokens, and the peak memory, as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    device, base = transformers_model.DEVICE, transformers_model.load(work)
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # The language model's linear modules, not the vision tower's of the same names.
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    lora = peft.LoraConfig(r=work["rank"], lora_alpha=work["alpha"], target_modules=targets)
    model = peft.get_peft_model(base, lora).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=work["learning_rate"], weight_decay=0.0)
    seconds, tokens = [], 0
    for file in [work["files"][0], *work["files"]]:
        began = time.perf_counter()
        batch = {name: value.to(device) for name, value in padded(file, work["grid"]).items()}
        batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
        batch["mm_token_type_ids"] = (batch["input_ids"] == work["image_token_id"]).int()
        # Adapters are float32, as ours are; their products are bf16, as trainers and we compute them.
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch).loss if work["objective"] == "sft" else surrogate(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        transformers_model.wait(loss)
        seconds.append(time.perf_counter() - began)
        tokens = batch["input_ids"].numel()
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    version = f"{transformers_model.VERSION}, peft {peft.__version__}"
    # The first is the warm-up.
    print(json.dumps({"seconds": seconds[1:], "tokens": tokens, "memory": memory, "version": version}))


def surrogate(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The clipped surrogate of GRPO, of advantage 1, with a nearly uniform policy as the old one."""
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch).logits[:, :-1].float()
    logprobs = torch.log_softmax(logits, -1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    ratio = torch.exp(logprobs + torch.log(torch.tensor(float(logits.shape[-1]))))
    return -torch.minimum(ratio, ratio.clamp(0.8, 1.2))[labels != -100].mean()


if __name__ == "__main__":
    main()
