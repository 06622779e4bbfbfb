"""Hugging Face checkpoints: converts safetensors in transformers' names to Flax parameters and back.

Both weight-name layouts of transformers can be read; the newer one is written. Tensors keep their dtype unless another is
requested.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
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
from mmsearch_jax.models.policy_folder import CONFIG, SIDE_FILES, SINGLE, replacing
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.tensor_files import TensorFiles

_log = logging.getLogger(__name__)
_EMBEDDING, _HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
_ROWS = 4096
_BLOCK = {"vision": "model.visual.blocks", "language": "model.language_model.layers"}
_NAMES = {
    "vision.patch_embed.kernel": "model.visual.patch_embed.proj.weight",
    "vision.merger.ln_q.scale": "model.visual.merger.ln_q.weight",
    "vision.merger.fc1.kernel": "model.visual.merger.mlp.0.weight",
    "vision.merger.fc1.bias": "model.visual.merger.mlp.0.bias",
    "vision.merger.fc2.kernel": "model.visual.merger.mlp.2.weight",
    "vision.merger.fc2.bias": "model.visual.merger.mlp.2.bias",
    "language.embedding": _EMBEDDING,
    "language.norm.scale": "model.language_model.norm.weight",
    "language.lm_head": _HEAD,
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

    Where config.json ties the head to the embeddings but the file's own head differs from them, the head is used, as
    transformers does, and the returned config is an untied one.

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
    place = place or (lambda path, shape: SingleDeviceSharding(jax.devices()[0]))
    with TensorFiles(folder) as files:
        if config.text.tie_word_embeddings and _has_own_head(files):
            _log.warning(
                "%s: config.json ties lm_head to the embeddings, but %s differs from %s: the model keeps its own head",
                folder, _HEAD, _EMBEDDING,
            )  # fmt: skip
            config = dataclasses.replace(config, text=dataclasses.replace(config.text, tie_word_embeddings=False))
        model = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0), dtype=dtype))
        graph, state = nnx.split(model)
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
    # Layers of several dtypes are stacked in one that holds them all.
    dtype = dtype or functools.reduce(jnp.promote_types, {files.dtype(name) for name in names})

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


def save_pretrained(
    model: Qwen2_5_VL,
    folder: str | Path,
    side_files_from: str | Path | None = None,
    dtypes: Mapping[str, np.dtype] = MappingProxyType({}),
    own_files: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes config.json and model.safetensors as transformers loads them, in place of a policy that the folder holds.

    Args:
      side_files_from: the checkpoint folder whose tokenizer and processor files belong to this model; they are copied, and its
        config.json is kept but for what differs.
      dtypes: of tensors that are not written in their parameter's dtype.
      own_files: name and text of files that take the place of the copied ones.
    """
    base = None if side_files_from is None else Path(side_files_from)
    with replacing(Path(folder), () if base is None else SIDE_FILES) as draft:
        tensors: dict[str, np.ndarray] = {}
        for path, leaf in _leaves(nnx.split(model)[1]):
            for name, tensor in _to_hf(path, leaf, model.config).items():
                # Transpose on the device: a transposed NumPy array is only a view, and safetensors would write the bytes of the
                # original order.
                tensors[name] = np.ascontiguousarray(tensor).astype(dtypes.get(name, tensor.dtype), copy=False)
        save_file(tensors, str(draft / SINGLE), metadata={"format": "pt"})
        sizes: dict[str, int] = {}
        for tensor in tensors.values():
            sizes[str(tensor.dtype)] = sizes.get(str(tensor.dtype), 0) + tensor.size
        write_config(model.config, draft, base, dtype=max(sizes, key=lambda name: sizes[name]))
        if base is not None:
            copy_side_files(base, draft)
        for name, text in own_files.items():
            (draft / name).write_text(text, encoding="utf-8")


def write_config(config: ModelConfig, folder: Path, base: Path | None, dtype: str) -> None:
    """Writes config.json: the base's, with what this model changes."""
    kept = base is not None and (base / CONFIG).is_file()
    record = json.loads((base / CONFIG).read_text(encoding="utf-8")) if base is not None and kept else None
    text = json.dumps(config.to_hf(record, dtype), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def copy_side_files(source: str | Path, folder: str | Path) -> None:
    """Copies the tokenizer's and the processor's files of a checkpoint folder."""
    for name in SIDE_FILES:
        if (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, Path(folder) / name)


def mixed_dtypes(folder: str | Path) -> dict[str, np.dtype]:
    """The stored dtypes of the tensors whose parameter is stacked from layers of several dtypes."""
    config = ModelConfig.from_pretrained(folder)
    state = nnx.split(nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0))))[1]
    mixed: dict[str, np.dtype] = {}
    with TensorFiles(folder) as files:
        for path, leaf in _leaves(state):
            found = {name: files.dtype(name) for name, _ in _hf_shapes(path, leaf.shape, config)}
            if len(set(found.values())) > 1:
                mixed |= found
    return mixed


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


def _has_own_head(files: TensorFiles) -> bool:
    """Whether the file's head differs from the embeddings in shape or in a value."""
    shapes = files.shapes
    if _HEAD not in shapes or _EMBEDDING not in shapes:
        return False
    parts = (slice(first, first + _ROWS) for first in range(0, shapes[_HEAD][0], _ROWS))
    return shapes[_HEAD] != shapes[_EMBEDDING] or any(
        not np.array_equal(files.read(_HEAD, (part,)), files.read(_EMBEDDING, (part,))) for part in parts
    )


def _check(state: Any, config: ModelConfig, files: TensorFiles) -> None:
    expected = _tensor_shapes(state, config)
    found = files.shapes
    if config.text.tie_word_embeddings:
        found.pop(_HEAD, None)
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
