"""A policy on disk: weights with tokenizer and image processor, as a Hugging Face folder or in our own format.

Our format is the same folder with the weights as an Orbax checkpoint in `params/`. `import_hf` converts to it, `export_hf`
converts back.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.hub import missing_checkpoint
from mmsearch_jax.core.staging import local_copy
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models import hf
from mmsearch_jax.models.axes import Placement
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.tokenizer import load_tokenizer


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model with its tokenizer and image processor."""

    model: Qwen2_5_VL
    tokenizer: Any
    image_processor: ImageProcessor
    folder: Path


def load_policy(
    folder: str | Path, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32, place: Placement | None = None
) -> Policy:
    """Loads a policy folder in either format.

    Args:
      dtype: of the computation.
      param_dtype: of the parameters; None keeps the stored dtype.
      place: maps each parameter to its sharding; by default the first device.

    Raises:
      CheckpointError: the folder is missing, incomplete or damaged; the message says what to do.
    """
    folder = local_copy(folder)
    if not folder.is_dir():
        raise CheckpointError(missing_checkpoint(folder))
    load = _load_params if (folder / "params").is_dir() else hf.load_pretrained
    model, _ = load(folder, dtype, param_dtype, place)
    return Policy(model, load_tokenizer(folder), ImageProcessor.from_pretrained(folder), folder)


def save_policy(model: Qwen2_5_VL, folder: str | Path, side_files_from: str | Path) -> None:
    """Writes a Hugging Face folder that every command and transformers can load."""
    hf.save_pretrained(model, folder, side_files_from)


def import_hf(source: str | Path, out: str | Path) -> None:
    """Converts a Hugging Face folder to our format (weights as an Orbax checkpoint, in the same dtype).

    Raises:
      CheckpointError: the source is not a Qwen2.5-VL checkpoint, or `out` already contains a policy.
    """
    out = Path(out)
    if (out / "params").exists():
        raise CheckpointError(f"{out} already holds a policy: choose another folder or remove it")
    model, config = hf.load_pretrained(source)
    out.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((out / "params").resolve(), nnx.to_pure_dict(nnx.split(model)[1]))
    (out / "config.json").write_text(json.dumps(config.to_hf(), indent=2) + "\n", encoding="utf-8")
    hf.copy_side_files(source, out)


def export_hf(source: str | Path, out: str | Path) -> None:
    """Converts a policy folder of either format to a Hugging Face folder; tensors keep their dtype.

    Raises:
      CheckpointError: the source cannot be loaded.
    """
    save_policy(load_policy(source, param_dtype=None).model, out, source)


def _load_params(folder: Path, dtype: Any, param_dtype: Any, place: Placement | None) -> tuple[Qwen2_5_VL, ModelConfig]:
    config = ModelConfig.from_pretrained(folder)
    model = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0), dtype=dtype))
    graph, state = nnx.split(model)
    place = place or (lambda path, shape: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata((folder / "params").resolve()).item_metadata
            wanted = jax.tree.map_with_path(
                lambda path, leaf, meta: jax.ShapeDtypeStruct(
                    leaf.shape, param_dtype or meta.dtype, sharding=place(".".join(key.key for key in path), leaf.shape)
                ),
                nnx.to_pure_dict(state),
                stored.tree if hasattr(stored, "tree") else stored,
            )
            params = checkpointer.restore((folder / "params").resolve(), wanted)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise CheckpointError(f"{folder}/params does not fit its config.json ({str(error).splitlines()[0]})") from error
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state), config
