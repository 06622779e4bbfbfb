"""Logical names and shapes of every parameter's dims, from a model's sizes. Names and numbers only: no JAX.

The names are not mesh axes: the rules in `distributed.rules` map names to mesh axes.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig

_AXES: dict[str, tuple[str, ...]] = {
    "language.embedding": ("vocab", "embed"),
    "language.lm_head": ("embed", "vocab"),
    "language.norm.scale": ("norm",),
    "vision.patch_embed.kernel": ("patch", "vision_embed"),
    "vision.merger.ln_q.scale": ("norm",),
    "vision.merger.fc1.kernel": ("vision_embed", "vision_mlp"),
    "vision.merger.fc1.bias": ("vision_mlp",),
    "vision.merger.fc2.kernel": ("vision_mlp", "embed"),
    "vision.merger.fc2.bias": ("norm",),
}
# The dims of each kernel by the last module of its path, without the leading layer dim.
_IN_LAYER: dict[str, tuple[str, str]] = {
    "q_proj": ("embed", "heads"),
    "k_proj": ("embed", "heads"),
    "v_proj": ("embed", "heads"),
    "o_proj": ("heads", "embed"),
    "gate_proj": ("embed", "mlp"),
    "up_proj": ("embed", "mlp"),
    "down_proj": ("mlp", "embed"),
    "qkv": ("embed", "heads"),
    "proj": ("heads", "embed"),
}


def logical_axes(path: str) -> tuple[str, ...]:
    """The names of a parameter's dims.

    Args:
      path: dotted, such as "language.layers.q_proj.kernel" (all layers) or "language.layers.0.q_proj.kernel" (one).

    Raises:
      KeyError: no such parameter.
    """
    if path in _AXES:
        return _AXES[path]
    part, _, *modules, kind = path.split(".")
    layers = () if modules[0].isdigit() else ("layers",)
    if kind == "scale":
        return (*layers, "norm")
    names = _IN_LAYER[modules[-1]]
    if part == "vision":
        names = (f"vision_{names[0]}", f"vision_{names[1]}")
    dims = {"kernel": names, "bias": names[1:], "lora_a": (names[0], "rank"), "lora_b": ("rank", names[1])}
    return (*layers, *dims[kind])


def parameter_shapes(model: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """The shape of every parameter by its dotted path; layers are stacked."""
    return {**_vision_shapes(model.vision), **_language_shapes(model.text)}


def lora_shapes(model: ModelConfig, rank: int, targets: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
    """The shape of every low-rank update that is added to the linear modules `targets` of the language model."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, shape in _language_shapes(model.text).items():
        owner, _, kind = path.rpartition(".")
        if kind == "kernel" and owner.rpartition(".")[2] in targets:
            layers, size_in, size_out = shape
            shapes[f"{owner}.lora_a"] = (layers, size_in, rank)
            shapes[f"{owner}.lora_b"] = (layers, rank, size_out)
    return shapes


def _language_shapes(text: TextConfig) -> dict[str, tuple[int, ...]]:
    size, wide = text.hidden_size, text.intermediate_size
    heads, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    in_layer = {
        "input_norm.scale": (size,),
        "post_attention_norm.scale": (size,),
        "q_proj.kernel": (size, heads),
        "q_proj.bias": (heads,),
        "k_proj.kernel": (size, keys),
        "k_proj.bias": (keys,),
        "v_proj.kernel": (size, keys),
        "v_proj.bias": (keys,),
        "o_proj.kernel": (heads, size),
        "mlp.gate_proj.kernel": (size, wide),
        "mlp.up_proj.kernel": (size, wide),
        "mlp.down_proj.kernel": (wide, size),
    }
    shapes = {f"language.layers.{name}": (text.num_hidden_layers, *shape) for name, shape in in_layer.items()}
    shapes |= {"language.embedding": (text.vocab_size, size), "language.norm.scale": (size,)}
    return shapes if text.tie_word_embeddings else {**shapes, "language.lm_head": (size, text.vocab_size)}


def _vision_shapes(vision: VisionConfig) -> dict[str, tuple[int, ...]]:
    size, wide, merged = vision.hidden_size, vision.intermediate_size, vision.hidden_size * vision.spatial_merge_size**2
    in_block = {
        "norm1.scale": (size,),
        "norm2.scale": (size,),
        "qkv.kernel": (size, 3 * size),
        "qkv.bias": (3 * size,),
        "proj.kernel": (size, size),
        "proj.bias": (size,),
        "mlp.gate_proj.kernel": (size, wide),
        "mlp.gate_proj.bias": (wide,),
        "mlp.up_proj.kernel": (size, wide),
        "mlp.up_proj.bias": (wide,),
        "mlp.down_proj.kernel": (wide, size),
        "mlp.down_proj.bias": (size,),
    }
    return {
        **{f"vision.blocks.{name}": (vision.depth, *shape) for name, shape in in_block.items()},
        "vision.patch_embed.kernel": (vision.patch_dim, size),
        "vision.merger.ln_q.scale": (size,),
        "vision.merger.fc1.kernel": (merged, merged),
        "vision.merger.fc1.bias": (merged,),
        "vision.merger.fc2.kernel": (merged, vision.out_hidden_size),
        "vision.merger.fc2.bias": (vision.out_hidden_size,),
    }
