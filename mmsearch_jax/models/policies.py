"""A policy on disk: weights with tokenizer and image processor, as a Hugging Face folder or in our own format.

Our format is the same folder with the weights as an Orbax checkpoint in `params/`. `import_hf` converts to it, `export_hf`
converts back.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
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
from mmsearch_jax.models.policy_folder import (
    ADAPTER_CONFIG,
    GENERATION_CONFIG,
    MIXED_DTYPES,
    PARAMS,
    SIDE_FILES,
    refuse_used,
    replacing,
    weights_layout,
)
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
    layout = weights_layout(folder)
    if layout == ADAPTER_CONFIG:
        raise CheckpointError(
            f"{folder} is an adapter, not a policy: give the folder that its updates are merged into, or evaluate it with "
            "`mmsearch eval --config.checkpoint=ADAPTER`"
        )
    load = _load_params if layout == PARAMS else hf.load_pretrained
    processor = ImageProcessor.from_pretrained(folder)
    _check_patches(processor, ModelConfig.from_pretrained(folder), folder)
    model, _ = load(folder, dtype, param_dtype, place)
    return Policy(model, load_tokenizer(folder), processor, folder)


def _check_patches(processor: ImageProcessor, config: ModelConfig, folder: Path) -> None:
    vision = config.vision
    for name, cut, taken in (
        ("patch_size", processor.patch_size, vision.patch_size),
        ("merge_size", processor.merge_size, vision.spatial_merge_size),
    ):
        if cut != taken:
            raise CheckpointError(
                f"{folder}: the image processor's {name} is {cut}, the vision tower takes {taken}: copy the processor's files "
                "from the base model's folder"
            )


def save_policy(
    model: Qwen2_5_VL,
    folder: str | Path,
    side_files_from: str | Path,
    *,
    chat_template: str = "",
    stop_strings: Sequence[str] = (),
) -> None:
    """Writes a Hugging Face folder that every command and transformers can load, in place of a policy that the folder holds.

    Args:
      chat_template: Jinja text for a policy whose base has no template.
      stop_strings: where generation stops, besides the end tokens; added to the base's generation_config.json.
    """
    base = Path(side_files_from)
    own = {}
    if chat_template and not _has_template(base):
        own["chat_template.jinja"] = chat_template
    if stop_strings:
        path = base / GENERATION_CONFIG
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        record = {"eos_token_id": model.config.eos_token_id, **record, "stop_strings": list(stop_strings)}
        own[GENERATION_CONFIG] = json.dumps(record, indent=2) + "\n"
    hf.save_pretrained(model, folder, base, own_files=own)


def _has_template(folder: Path) -> bool:
    tokenizer = folder / "tokenizer_config.json"
    inside = tokenizer.is_file() and "chat_template" in json.loads(tokenizer.read_text(encoding="utf-8"))
    return inside or any((folder / f"chat_template.{kind}").is_file() for kind in ("jinja", "json"))


def import_hf(source: str | Path, out: str | Path) -> None:
    """Converts a Hugging Face folder to our format (weights as an Orbax checkpoint, in the same dtype).

    Raises:
      CheckpointError: the source is not a Qwen2.5-VL checkpoint, or `out` already contains a policy.
    """
    source, out = Path(source), Path(out)
    refuse_used(out)
    model, config = hf.load_pretrained(source)
    mixed = hf.mixed_dtypes(source)
    with replacing(out, SIDE_FILES) as draft:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((draft / PARAMS).resolve(), nnx.to_pure_dict(nnx.split(model)[1]))
        hf.write_config(config, draft, source, dtype="")
        hf.copy_side_files(source, draft)
        if mixed:
            text = json.dumps({name: str(dtype) for name, dtype in mixed.items()}, indent=1)
            (draft / MIXED_DTYPES).write_text(text + "\n", encoding="utf-8")


def export_hf(source: str | Path, out: str | Path, *, replace: bool = False) -> None:
    """Converts a policy folder of either format to a Hugging Face folder; tensors keep their dtype.

    Args:
      replace: whether the export takes the place of a policy that `out` holds.

    Raises:
      CheckpointError: the source cannot be loaded, or `out` already contains a policy.
    """
    source, out = Path(source), Path(out)
    if not replace:
        refuse_used(out)
    policy = load_policy(source, param_dtype=None)
    if weights_layout(source) != PARAMS:
        dtypes = hf.mixed_dtypes(source)
    elif (source / MIXED_DTYPES).is_file():
        stored = json.loads((source / MIXED_DTYPES).read_text(encoding="utf-8"))
        dtypes = {name: jnp.dtype(dtype) for name, dtype in stored.items()}
    else:
        dtypes = {}
    hf.save_pretrained(policy.model, out, source, dtypes)


def _load_params(folder: Path, dtype: Any, param_dtype: Any, place: Placement | None) -> tuple[Qwen2_5_VL, ModelConfig]:
    config = ModelConfig.from_pretrained(folder)
    model = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0), dtype=dtype))
    graph, state = nnx.split(model)
    place = place or (lambda path, shape: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata((folder / PARAMS).resolve()).item_metadata
            wanted = jax.tree.map_with_path(
                lambda path, leaf, meta: jax.ShapeDtypeStruct(
                    leaf.shape, param_dtype or meta.dtype, sharding=place(".".join(key.key for key in path), leaf.shape)
                ),
                nnx.to_pure_dict(state),
                stored.tree if hasattr(stored, "tree") else stored,
            )
            params = checkpointer.restore((folder / PARAMS).resolve(), wanted)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise CheckpointError(f"{folder}/params does not fit its config.json ({str(error).splitlines()[0]})") from error
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state), config
