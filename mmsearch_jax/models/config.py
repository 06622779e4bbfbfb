"""Sizes and constants of a Qwen2.5-VL model, as its `config.json` gives them.

Field names are those of transformers, so that a config read from disk and one built here are equal.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.hub import missing_checkpoint
from mmsearch_jax.core.json_files import json_object
from mmsearch_jax.images.vision_layout import VisionLayout


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower. `window_size` is in pixels; `fullatt_block_indexes` lists the blocks without windows."""

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    out_hidden_size: int = 3584
    patch_size: int = 14
    temporal_patch_size: int = 2
    in_channels: int = 3
    spatial_merge_size: int = 2
    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    rope_theta: float = 10000.0

    @property
    def patch_dim(self) -> int:
        """Number of values in one patch: channels x frames x height x width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def window_patches(self) -> int:
        """Side of a window in patches: whole merged tokens, rounded like the reference."""
        return self.window_size // self.spatial_merge_size // self.patch_size * self.spatial_merge_size

    @property
    def layout(self) -> VisionLayout:
        """How the host must lay out patches for this tower."""
        return VisionLayout(self.spatial_merge_size, self.window_patches, self.in_channels * self.patch_size**2)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The language model. `mrope_section` splits half a head's width over time, height and width positions."""

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1000000.0
    mrope_section: tuple[int, int, int] = (16, 24, 24)
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 128000

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole Qwen2.5-VL model."""

    text: TextConfig = TextConfig()
    vision: VisionConfig = VisionConfig()
    image_token_id: int = 151655
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    video_token_id: int = 151656
    eos_token_id: int | None = 151645

    def __post_init__(self) -> None:
        if sum(self.text.mrope_section) * 2 != self.text.head_dim:
            raise CheckpointError(
                f"mrope_section {self.text.mrope_section} must sum to half the head width {self.text.head_dim}"
            )
        for heads, name, size, of in (
            (self.text.num_attention_heads, "num_attention_heads", self.text.hidden_size, "hidden_size"),
            (
                self.text.num_key_value_heads,
                "num_key_value_heads",
                self.text.num_attention_heads,
                "num_attention_heads",
            ),
            (self.vision.num_heads, "num_heads", self.vision.hidden_size, "hidden_size"),
        ):
            if size % heads:
                raise CheckpointError(f"config.json: {of} {size} is no multiple of {name} {heads}")
        if self.vision.out_hidden_size != self.text.hidden_size:
            raise CheckpointError(
                f"the vision tower outputs {self.vision.out_hidden_size} values a token, the language model takes "
                f"{self.text.hidden_size}"
            )

    @classmethod
    def from_hf(cls, record: Mapping[str, Any]) -> ModelConfig:
        """Reads transformers' `config.json`, with the text fields nested (`text_config`) or at the top (older files).

        Raises:
          CheckpointError: another architecture, quantised weights, a type of RoPE, attention or activation that the model does
            not support, or a size that is none.
        """
        if record.get("model_type") not in ("qwen2_5_vl",):
            raise CheckpointError(
                f"config.json describes a '{record.get('model_type')}' model, expected 'qwen2_5_vl': give one of those"
            )
        if record.get("quantization_config"):
            raise CheckpointError("config.json has a quantization_config: only weights in floating point are supported")
        text, vision = _part(record, "text_config") or dict(record), _part(record, "vision_config")
        older, newer = _part(text, "rope_scaling"), _part(text, "rope_parameters")
        for rope in (older, newer):
            kind = rope.get("rope_type", rope.get("type", "default"))
            if kind not in ("default", "mrope"):
                raise CheckpointError(
                    f"config.json sets RoPE of type '{kind}'; only 'default' and 'mrope' are supported"
                )
        rope = {**older, **newer}
        if (
            1.0 not in (rotated := {part.get("partial_rotary_factor", 1.0) for part in (text, rope)})
            or len(rotated) > 1
        ):
            raise CheckpointError("config.json sets a partial_rotary_factor; only RoPE of the whole head is supported")
        layers = text.get("layer_types")
        others = [layer for layer in layers if layer != "full_attention"] if isinstance(layers, list) else []
        if text.get("use_sliding_window") or others:
            raise CheckpointError("config.json sets sliding-window attention in the text model; only full is supported")
        for part in (text, vision):
            if part.get("hidden_act", "silu") != "silu":
                raise CheckpointError(
                    f"config.json sets the activation '{part['hidden_act']}'; only 'silu' is supported"
                )
        if text.get("num_key_value_heads", 0) is None:
            text["num_key_value_heads"] = text["num_attention_heads"]
        text["rope_theta"] = rope.get("rope_theta", text.get("rope_theta", TextConfig.rope_theta))
        text["mrope_section"] = tuple(rope.get("mrope_section", TextConfig.mrope_section))
        text["tie_word_embeddings"] = record.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
        vision["fullatt_block_indexes"] = tuple(
            vision.get("fullatt_block_indexes", VisionConfig.fullatt_block_indexes) or ()
        )
        vision["rope_theta"] = _part(vision, "rope_parameters").get("rope_theta", VisionConfig.rope_theta)
        ids = {key: record[key] for key in _TOKEN_IDS if key in record}
        eos = text.get("eos_token_id", record.get("eos_token_id"))
        sizes = _known(TextConfig, text, "text_config"), _known(VisionConfig, vision, "vision_config")
        return cls(*sizes, eos_token_id=eos, **ids)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ModelConfig:
        """Reads `config.json` of a checkpoint folder.

        Raises:
          CheckpointError: no such file, or not JSON.
        """
        path = Path(folder) / "config.json"
        if not Path(folder).is_dir():
            raise CheckpointError(missing_checkpoint(folder))
        if not path.is_file():
            raise CheckpointError(f"no config.json in {folder}: give the folder of a Hugging Face checkpoint")
        return cls.from_hf(json_object(path, CheckpointError))

    def to_hf(self, base: Mapping[str, Any] | None = None, dtype: str = "") -> dict[str, Any]:
        """The `config.json` from which transformers 4 and 5 build the same model.

        Args:
          base: the record that the model was made from. It is kept, but for what the model changes.
          dtype: of the weights; "" if unknown or unchanged.
        """
        record = copy.deepcopy(dict(base)) if base is not None else self._new_record()
        tied = self.text.tie_word_embeddings
        nested = record.get("text_config")
        record["tie_word_embeddings"] = tied
        if isinstance(nested, dict):
            nested["tie_word_embeddings"] = tied
            # transformers 4 reads rope_scaling and rope_theta, transformers 5 writes rope_parameters. Both read flat records.
            theta, sections = self.text.rope_theta, list(self.text.mrope_section)
            nested.setdefault("rope_theta", theta)
            nested["rope_scaling"] = nested.get("rope_scaling") or {"type": "mrope", "mrope_section": sections}
            nested.setdefault("rope_parameters", _rope(theta, sections))
        if dtype and dtype != record.get("dtype", record.get("torch_dtype")):
            record |= {"dtype": dtype, "torch_dtype": dtype}
            for part in (nested, record.get("vision_config")):
                if isinstance(part, dict):
                    part |= {key: dtype for key in ("dtype", "torch_dtype") if key in part}
        return record

    def _new_record(self) -> dict[str, Any]:
        text = dataclasses.asdict(self.text)
        sections, theta = list(text.pop("mrope_section")), text["rope_theta"]
        text |= {
            "model_type": "qwen2_5_vl_text",
            "hidden_act": "silu",
            "eos_token_id": self.eos_token_id,
            "rope_parameters": _rope(theta, sections),
        }
        vision = dataclasses.asdict(self.vision)
        vision["fullatt_block_indexes"] = list(vision["fullatt_block_indexes"])
        vision_theta = vision.pop("rope_theta")
        vision |= {
            "model_type": "qwen2_5_vl_vision",
            "hidden_act": "silu",
            "rope_parameters": {"rope_type": "axial", "rope_theta": vision_theta},
        }
        return {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            "text_config": text,
            "vision_config": vision,
            **{key: getattr(self, key) for key in _TOKEN_IDS},
            "eos_token_id": self.eos_token_id,
        }


def _rope(theta: float, sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, "mrope_section": sections}


_TOKEN_IDS = ("image_token_id", "vision_start_token_id", "vision_end_token_id", "video_token_id")


def _part(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object of the config; empty if there is none."""
    value = record.get(name) or {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"config.json: {name} is not an object: download the file again")
    return dict(value)


def _known(kind: type, record: Mapping[str, Any], where: str) -> Any:
    """The fields of `kind` that the record has. Sizes must be numbers above 0."""
    values = {field.name: record[field.name] for field in dataclasses.fields(kind) if field.name in record}
    for name, value in values.items():
        default = getattr(kind, name)
        if isinstance(default, bool | tuple):
            continue
        sound = isinstance(value, int if isinstance(default, int) else int | float) and not isinstance(value, bool)
        if not sound or value <= 0:
            expected = "a whole number" if isinstance(default, int) else "a number"
            raise CheckpointError(f"config.json: {where}.{name} is {value!r}, expected {expected} above 0")
    return kind(**values)
