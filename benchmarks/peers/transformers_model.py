"""A random Qwen2.5-VL in transformers, for the scripts beside it: its weights from a folder, or made where it runs."""

from collections.abc import Callable
from typing import Any

import measuring
import torch
import transformers

VERSION = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(work: dict[str, Any]) -> Any:
    """The model: work["folder"] in float32, or, where a large one is described by work["config"], random weights in bf16."""
    if "threads" in work:
        torch.set_num_threads(work["threads"])
    # What the first products choose stays chosen.
    torch.backends.cuda.matmul.allow_tf32 = False
    if "folder" in work:
        found = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(work["folder"], dtype=torch.float32)
        return found.to(DEVICE).eval()
    config = transformers.Qwen2_5_VLConfig(**{k: v for k, v in work["config"].items() if k != "architectures"})
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        made = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    return made.eval()


def wait(_: Any) -> None:
    """Waits until the device has finished its work."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def memory(run: Callable[[], Any]) -> int:
    """Peak bytes of a call above what was held before, on the device that computes."""
    if DEVICE == "cpu":
        return measuring.memory(run)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    wait(None)
    return torch.cuda.max_memory_allocated() - before
