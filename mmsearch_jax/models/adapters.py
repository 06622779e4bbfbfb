"""LoRA adapters on disk, in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.models.adapter_records import AdapterRecord
from mmsearch_jax.models.lora import add_lora, lora_layers
from mmsearch_jax.models.policy_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, replacing
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.policy import IN_MLP, LoRAConfig

_LAYERS = "base_model.model.model.language_model.layers"


def save_adapter(model: Qwen2_5_VL, folder: str | Path, base: str) -> None:
    """Writes a model's LoRA updates in the form that `peft.PeftModel.from_pretrained` loads.

    Args:
      base: name or path of the checkpoint that the adapter belongs to.
    """
    layers = lora_layers(model)
    rank = next(iter(layers.values())).lora_a.shape[-1]
    tensors: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        for i, (a, b) in enumerate(zip(layer.lora_a[...], layer.lora_b[...], strict=True)):
            prefix = f"{_LAYERS}.{i}.{_module(name)}"
            tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(np.asarray(a, np.float32).T)
            tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(np.asarray(b, np.float32).T)
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
    with replacing(Path(folder)) as draft:
        save_file(tensors, draft / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (draft / ADAPTER_CONFIG).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: Qwen2_5_VL, folder: str | Path) -> Qwen2_5_VL:
    """Returns the model with the adapter's updates added beside its kernels.

    An adapter whose modules differ in rank or scale becomes one of the largest rank and one scale: updates are padded with
    zeros, and their scales move into `lora_b`.

    Raises:
      CheckpointError: no adapter in the folder, an adapter of another model, or one that updates unsupported modules or has a
        meaning that is not computed here.
    """
    folder = Path(folder)
    record = AdapterRecord.read(folder / ADAPTER_CONFIG)
    tensors = _by_module(folder)
    targets = tuple(name for name in LoRAConfig().targets if any(key.name == name for key in tensors))
    if not targets:
        raise CheckpointError(
            f"{folder} holds no update of {', '.join(LoRAConfig().targets)}: nothing would be applied"
        )
    layers = model.config.text.num_hidden_layers
    modules = [_Module(layer, name) for name in targets for layer in range(layers)]
    if others := sorted(tensors.keys() - set(modules)):
        raise CheckpointError(f"{folder} updates layer {others[0].layer}, but the model has {layers}: {_OTHER_BASE}")
    # The scale of most modules, so that an adapter without patterns keeps its numbers exactly.
    scales = [record.scale_of(module.path) for module in modules]
    scale, rank = max(set(scales), key=scales.count), max(record.rank_of(module.path) for module in modules)
    adapted = add_lora(model, LoRAConfig(rank, scale * rank, targets, record.dropout))
    for name, layer in lora_layers(adapted).items():
        first, second = np.zeros(layer.lora_a.shape, np.float32), np.zeros(layer.lora_b.shape, np.float32)
        for i in range(layers):
            module = _Module(i, name)
            own, (a, b) = record.rank_of(module.path), tensors.get(module, (None, None))
            if a is None or b is None or a.shape != (own, first.shape[1]) or b.shape != (second.shape[2], own):
                found = "is missing" if a is None or b is None else f"has {a.shape} and {b.shape}"
                raise CheckpointError(
                    f"{folder}: the update of {module.path} {found}, expected {(own, first.shape[1])} and "
                    f"{(second.shape[2], own)}; it does not fit the model: {_OTHER_BASE}"
                )
            first[i, :, :own], factor = a.T, record.scale_of(module.path) / scale
            second[i, :own] = b.T if factor == 1.0 else b.T * np.float32(factor)
        layer.lora_a[...], layer.lora_b[...] = jnp.asarray(first), jnp.asarray(second)
    return adapted


_OTHER_BASE = "was it trained on another base model?"
# transformers before 4.52 had no `language_model` in the names; a state dict that is saved directly keeps the adapter's name.
_TENSOR = re.compile(
    r"(?:base_model\.model\.)?(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)"
    r"\.lora_([AB])(?:\.default)?\.weight"
)


class _Module(NamedTuple):
    """One linear module of one layer."""

    layer: int
    name: str

    @property
    def path(self) -> str:
        """Its name in transformers."""
        return f"model.language_model.layers.{self.layer}.{_module(self.name)}"


def _by_module(folder: Path) -> dict[_Module, tuple[np.ndarray | None, np.ndarray | None]]:
    """Every module's A [rank, in] and B [out, rank], float32; None for one that is missing."""
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read an adapter in {folder} ({error}): give a folder written by PEFT") from error
    found: dict[_Module, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None or match[2] not in LoRAConfig().targets:
            raise CheckpointError(
                f"{folder} updates modules other than {', '.join(LoRAConfig().targets)} of the language model ({name}): "
                "others are unsupported"
            )
        parts = found.setdefault(_Module(int(match[1]), match[2]), {})
        if match[3] in parts:
            raise CheckpointError(f"{folder} holds the update of {name} twice, in two layouts of names: keep one")
        parts[match[3]] = np.asarray(tensor, np.float32)
        # A quantised update needs its scales, and one number that is none makes every logit none.
        if np.issubdtype(tensor.dtype, np.integer) or not np.isfinite(parts[match[3]]).all():
            found_in = "whole numbers" if np.issubdtype(tensor.dtype, np.integer) else "values that are not finite"
            raise CheckpointError(
                f"{folder} has {found_in} in {name}: give an adapter with sound floating-point updates"
            )
    return {module: (parts.get("A"), parts.get("B")) for module, parts in found.items()}


def _module(name: str) -> str:
    return f"{'mlp' if name in IN_MLP else 'self_attn'}.{name}"
