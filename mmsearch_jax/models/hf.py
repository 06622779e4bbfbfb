"""Hugging Face checkpoints: converts safetensors in transformers' names to Flax parameters and back.

Both weight-name layouts of transformers can be read; the newer one is written. Tensors keep their dtype unless another is
requested.
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
from jax.sharding import Sharding, SingleDeviceSharding
from safetensors.numpy import save_file

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.models.axes import Placement
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.tensor_files import TensorFiles

_SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
)
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
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "input_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
}


def load_pretrained(
    folder: str | Path, dtype: Any = jnp.float32, param_dtype: Any = None, place: Placement | None = None
) -> tuple[Qwen2_5_VL, ModelConfig]:
    """Reads a checkpoint folder (config.json and safetensors, one file or many with an index).

    Each parameter is read directly into its sharding, shard by shard: a host holds only its own shards and one part of a file
    at a time.

    Args:
      dtype: of the computation.
      param_dtype: of the parameters; by default the stored dtype.
      place: maps each parameter to its sharding; by default the first device.

    Raises:
      CheckpointError: a file is missing or damaged, or tensors are missing, unexpected or misshapen (listed).
    """
    folder = Path(folder)
    config = ModelConfig.from_pretrained(folder)
    model = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0), dtype=dtype))
    graph, state = nnx.split(model)
    place = place or (lambda path, shape: SingleDeviceSharding(jax.devices()[0]))
    with TensorFiles(folder) as files:
        _check(state, config, files)
        loaded = {
            path: _load_leaf(files, path, leaf.shape, config, param_dtype, place(path, leaf.shape))
            for path, leaf in _leaves(state)
        }
    return nnx.merge(graph, _replace_leaves(state, loaded)), config


def _load_leaf(
    files: TensorFiles, path: str, shape: tuple[int, ...], config: ModelConfig, dtype: Any, sharding: Sharding
) -> jax.Array:
    names = [name for name, _ in _hf_shapes(path, shape, config)]
    dtype = dtype or files.dtype(names[0])

    def read(index: Any) -> np.ndarray:
        if not _block_name(path):
            return _read_part(files, names[0], path, index).astype(dtype, copy=False)
        layers = range(len(names))[index[0]]
        first = _read_part(files, names[layers[0]], path, index[1:])
        stacked = np.empty((len(layers), *first.shape), dtype)
        stacked[0] = first
        for place, layer in enumerate(layers[1:], 1):
            stacked[place] = _read_part(files, names[layer], path, index[1:])
        return stacked

    return jax.make_array_from_callback(shape, sharding, read)


def _read_part(files: TensorFiles, name: str, path: str, index: tuple[slice, ...]) -> np.ndarray:
    """One layer's part of a parameter, cut in the file's layout before it is converted to ours."""
    if path == "vision.patch_embed.kernel":
        cut = files.read(name, index[1:])
        return cut.reshape(cut.shape[0], -1).T[index[0]]
    if _is_transposed(path):
        return files.read(name, index[::-1]).T
    return files.read(name, index)


def save_pretrained(model: Qwen2_5_VL, folder: str | Path, side_files_from: str | Path | None = None) -> None:
    """Writes config.json and model.safetensors as transformers loads them.

    Args:
      side_files_from: the checkpoint folder whose tokenizer and processor files belong to this model; they are copied.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    for path, leaf in _leaves(nnx.split(model)[1]):
        for name, tensor in _to_hf(path, leaf, model.config).items():
            # Transpose on the device: a transposed NumPy array is only a view, and safetensors would write the bytes of the
            # original order.
            tensors[name] = np.ascontiguousarray(tensor)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(), indent=2) + "\n", encoding="utf-8")
    if side_files_from is not None:
        copy_side_files(side_files_from, folder)


def copy_side_files(source: str | Path, folder: str | Path) -> None:
    """Copies the tokenizer's and the processor's files of a checkpoint folder."""
    for name in _SIDE_FILES:
        if (Path(source) / name).is_file() and Path(source).resolve() != Path(folder).resolve():
            shutil.copyfile(Path(source) / name, Path(folder) / name)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint of this config: name (the newer layout) and shape."""
    model = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0)))
    return _tensor_shapes(nnx.split(model)[1], config)


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


def _to_hf(path: str, leaf: jax.Array, config: ModelConfig) -> dict[str, jax.Array]:
    named = _hf_shapes(path, leaf.shape, config)
    parts = list(leaf) if _block_name(path) else [leaf]
    return {
        name: (part.T if _is_transposed(path) else part).reshape(shape)
        for (name, shape), part in zip(named, parts, strict=True)
    }


def _tensor_shapes(state: Any, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {name: shape for path, leaf in _leaves(state) for name, shape in _hf_shapes(path, leaf.shape, config)}


def _check(state: Any, config: ModelConfig, files: TensorFiles) -> None:
    expected = _tensor_shapes(state, config)
    found = files.shapes
    if config.text.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"unexpected {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} is {found[name]}, expected {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    if problems:
        more = f" and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CheckpointError(f"{files.folder} does not fit its config.json: {'; '.join(problems[:20])}{more}")
