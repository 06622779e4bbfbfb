"""LoRA adapters on disk, in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.models.lora import add_lora, lora_layers
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.policy import IN_MLP, LoRAConfig

_LAYERS = "base_model.model.model.language_model.layers"


def save_adapter(model: Qwen2_5_VL, folder: str | Path, base: str) -> None:
    """Writes a model's LoRA updates in the form that `peft.PeftModel.from_pretrained` loads.

    Args:
      base: name or path of the checkpoint that the adapter belongs to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layers = lora_layers(model)
    rank = next(iter(layers.values())).lora_a.shape[-1]
    tensors: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        for i, (a, b) in enumerate(zip(layer.lora_a[...], layer.lora_b[...], strict=True)):
            prefix = f"{_LAYERS}.{i}.{_module(name)}"
            tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(np.asarray(a, np.float32).T)
            tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(np.asarray(b, np.float32).T)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    one = next(iter(layers.values()))
    record = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": one.scale * rank,
        "lora_dropout": one.dropout,
        "bias": "none",
        # A pattern instead of a list of names: the vision tower has modules of the same names, which must not be updated.
        "target_modules": rf".*language_model\.layers\.\d+\.({'|'.join(_module(name) for name in layers)})",
    }
    (folder / "adapter_config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: Qwen2_5_VL, folder: str | Path) -> Qwen2_5_VL:
    """Returns the model with the adapter's updates added beside its kernels.

    Raises:
      CheckpointError: no adapter in the folder, an adapter of another model, or one that updates unsupported modules.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read an adapter in {folder} ({error}): give a folder written by PEFT") from error
    known = {name for name in LoRAConfig().targets if f"{_LAYERS}.0.{_module(name)}.lora_A.weight" in tensors}
    targets = tuple(name for name in LoRAConfig().targets if name in known)
    config = LoRAConfig(record["r"], record["lora_alpha"], targets, record.get("lora_dropout", 0.0))
    adapted = add_lora(model, config)
    used = 0
    for name, layer in lora_layers(adapted).items():
        for kind, variable in (("A", layer.lora_a), ("B", layer.lora_b)):
            names = [f"{_LAYERS}.{i}.{_module(name)}.lora_{kind}.weight" for i in range(variable.shape[0])]
            found = [tensors[n].T for n in names if n in tensors]
            if len(found) < len(names) or found[0].shape != variable.shape[1:]:
                raise CheckpointError(
                    f"{folder}: {names[0]} does not fit the model: was it trained on another base model?"
                )
            variable[...] = jnp.asarray(np.stack(found), variable.dtype)
            used += len(names)
    if used < len(tensors):
        raise CheckpointError(
            f"{folder} updates modules other than {', '.join(config.targets)}: others are unsupported"
        )
    return adapted


def _module(name: str) -> str:
    return f"{'mlp' if name in IN_MLP else 'self_attn'}.{name}"
