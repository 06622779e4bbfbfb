"""Hugging Face checkpoints in and out: safetensors in transformers' names to Flax parameters and back.

Both weight-name layouts that transformers has used are read; what is written is the newer one. Tensors keep their dtype
unless another is asked for.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from mmsearch_jax.errors import CheckpointError
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL

_OLD_LAYOUT = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(layers|embed_tokens|norm)\."), r"model.language_model.\1."),
)
_SIDE_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "preprocessor_config.json", "chat_template.json", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_BLOCK = {"vision": "model.visual.blocks", "language": "model.language_model.layers"}
_NAMES = {
    "vision.patch_embed.kernel": "model.visual.patch_embed.proj.weight",
    "vision.merger.ln_q.scale": "model.visual.merger.ln_q.weight",
    "vision.merger.fc1.kernel": "model.visual.merger.mlp.0.weight",
    "vision.merger.fc1.bias": "model.visual.merger.mlp.0.bias",
    "vision.merger.fc2.kernel": "model.visual.merger.mlp.2.weight",
    "vision.merger.fc2.bias": "model.visual.merger.mlp.2.bias",
    "language.embedding": "model.language_model.embed_tokens.weight",
    "language.norm.scale": "model.language_model.norm.weight",
    "language.lm_head": "lm_head.weight",
}
_IN_BLOCK = {
    "qkv": "attn.qkv", "proj": "attn.proj", "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj", "o_proj": "self_attn.o_proj", "input_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
}  # fmt: skip


def load_pretrained(
    folder: str | Path, dtype: Any = jnp.float32, param_dtype: Any = None
) -> tuple[Qwen2_5_VL, ModelConfig]:
    """Reads a checkpoint folder (config.json and safetensors, one file or many with an index).

    Args:
      dtype: of the computation; `param_dtype` of the parameters (by default the same).

    Raises:
      CheckpointError: a file is missing or damaged, or tensors are missing, superfluous or misshapen (listed).
    """
    folder = Path(folder)
    config = ModelConfig.from_pretrained(folder)
    param_dtype = param_dtype or dtype
    model = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype))
    graph, state = nnx.split(model)
    expected = {name: shape for path, leaf in _leaves(state) for name, shape in _hf_shapes(path, leaf.shape, config)}
    tensors = _read_tensors(folder)
    if config.text.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    _check(expected, {name: tensor.shape for name, tensor in tensors.items()}, folder)
    loaded = {
        path: jnp.asarray(
            _from_hf(path, [tensors[name] for name, _ in _hf_shapes(path, leaf.shape, config)]), param_dtype
        )
        for path, leaf in _leaves(state)
    }
    return nnx.merge(graph, _replace_leaves(state, loaded)), config


def save_pretrained(model: Qwen2_5_VL, folder: str | Path, side_files_from: str | Path | None = None) -> None:
    """Writes config.json and model.safetensors as transformers loads them.

    Args:
      side_files_from: the checkpoint folder whose tokenizer and processor files belong to this model; they are copied.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, jax.Array] = {}
    for path, leaf in _leaves(nnx.split(model)[1]):
        tensors |= _to_hf(path, leaf, model.config)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(), indent=2) + "\n", encoding="utf-8")
    if side_files_from is not None:
        copy_side_files(side_files_from, folder)


def copy_side_files(source: str | Path, folder: str | Path) -> None:
    """Copies the tokenizer's and the processor's files of a checkpoint folder."""
    for name in _SIDE_FILES:
        if (Path(source) / name).is_file() and Path(source).resolve() != Path(folder).resolve():
            shutil.copyfile(Path(source) / name, Path(folder) / name)


# Names and shapes ---------------------------------------------------------------------------------------------------


def _leaves(state: Any) -> Iterator[tuple[str, Any]]:
    for path, variable in nnx.to_flat_state(state):
        yield ".".join(str(key) for key in path), variable.get_value()


def _replace_leaves(state: Any, values: Mapping[str, jax.Array]) -> Any:
    flat = [
        (path, variable.replace(values[".".join(str(key) for key in path)]))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.from_flat_state(flat)


def _block_name(path: str) -> tuple[str, str] | None:
    match = re.match(r"^(vision|language)\.(?:blocks|layers)\.(.+)$", path)
    if match is None:
        return None
    *modules, kind = match[2].split(".")
    modules = [_IN_BLOCK.get(module, module) for module in modules]
    return _BLOCK[match[1]], ".".join([*modules, "bias" if kind == "bias" else "weight"])


def _hf_shapes(path: str, shape: tuple[int, ...], config: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    """The tensors that make up one of our parameters, in order, with their shapes."""
    block = _block_name(path)
    one = _hf_shape(path, shape[1:] if block else shape, config)
    if block is None:
        return [(_NAMES[path], one)]
    return [(f"{block[0]}.{i}.{block[1]}", one) for i in range(shape[0])]


def _hf_shape(path: str, shape: tuple[int, ...], config: ModelConfig) -> tuple[int, ...]:
    if path == "vision.patch_embed.kernel":
        v = config.vision
        return (v.hidden_size, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)
    return shape[::-1] if _is_transposed(path) else shape


def _is_transposed(path: str) -> bool:
    return path.endswith(".kernel") or path == "language.lm_head"


def _from_hf(path: str, tensors: list[np.ndarray]) -> np.ndarray:
    if path == "vision.patch_embed.kernel":
        return tensors[0].reshape(tensors[0].shape[0], -1).T
    turned = [tensor.T if _is_transposed(path) else tensor for tensor in tensors]
    return np.stack(turned) if _block_name(path) else turned[0]


def _to_hf(path: str, leaf: jax.Array, config: ModelConfig) -> dict[str, jax.Array]:
    named = _hf_shapes(path, leaf.shape, config)
    parts = list(leaf) if _block_name(path) else [leaf]
    return {
        name: (part.T if _is_transposed(path) else part).reshape(shape)
        for (name, shape), part in zip(named, parts, strict=True)
    }


# Files --------------------------------------------------------------------------------------------------------------


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(str(file), framework="flax") as opened:
                for name in opened.keys():  # noqa: SIM118  (the handle is no mapping)
                    tensors[_new_name(name)] = np.asarray(opened.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged ({error}): fetch it again") from error
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}: the download is not complete, or it is no checkpoint"
        )
    return files


def _new_name(name: str) -> str:
    for pattern, replacement in _OLD_LAYOUT:
        name = pattern.sub(replacement, name)
    return name


def _check(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"superfluous {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} is {found[name]}, expected {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    if problems:
        more = f" and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CheckpointError(f"{folder} does not fit its config.json: {'; '.join(problems[:20])}{more}")
