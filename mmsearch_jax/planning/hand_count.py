"""The hand count: an estimate of a learner program's memory on one chip, item by item, from sizes only: no JAX, no compilation.

Memory before the step is exact, by shapes and shardings. Memory of the step itself is the sum of the large arrays that exist at
one time. Compare it with the compiler's peak: the compiler's total includes fragmentation. docs/planning.md compares the two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from mmsearch_jax.distributed.layout import BATCH_AXES
from mmsearch_jax.distributed.rules import RULES, Rules, rules_of, split_axes
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.logical_axes import logical_axes, lora_shapes, parameter_shapes
from mmsearch_jax.settings.commands import LearnerSettings, PolicySettings
from mmsearch_jax.settings.learning import BatchShape, GRPOConfig, SFTConfig

_HEAD_BUFFERS, _STREAMS, _HEAD_STREAMS = 3, 6, 8
"""Arrays at one time: float32 logits of a chunk; in a layer's backward pass, arrays of the model's and of the heads' width."""
_CHUNK = 1024
"""Tokens whose logits exist at one time (`learners.logprobs`)."""


@dataclasses.dataclass(frozen=True)
class HandCount:
    """Bytes on a chip, by purpose."""

    weights: float
    trained: float
    optimizer: float
    batch: float
    gradients: float
    saved: float
    layer: float
    head: float
    vision: float

    @property
    def arguments(self) -> float:
        """Memory before the step."""
        return self.weights + self.trained + self.optimizer + self.batch

    @property
    def temporaries(self) -> float:
        """Memory that the step adds. A frozen vision tower runs before the layers' activations exist."""
        return self.gradients + max(self.vision, self.saved + max(self.layer, self.head))

    @property
    def total(self) -> float:
        """Both."""
        return self.arguments + self.temporaries


@dataclasses.dataclass(frozen=True)
class Held:
    """Bytes on a chip before the step."""

    weights: float
    trained: float
    optimizer: float
    batch: float


@dataclasses.dataclass(frozen=True)
class LearnerSizes:
    """Everything that the hand count depends on.

    Attributes:
      mesh: size of each axis.
      remat: the settings' `remat`.
      half: it computes in 16 bits.
      full: all parameters are trained.
    """

    model: ModelConfig
    shape: BatchShape
    mesh: Mapping[str, int]
    remat: str
    half: bool
    full: bool
    held: Held


def count(sizes: LearnerSizes) -> HandCount:
    """The hand count of the program that computes a batch's loss and gradients."""
    text, vision, shape = sizes.model.text, sizes.model.vision, sizes.shape
    mesh, held = sizes.mesh, sizes.held
    width = 2 if sizes.half else 4
    tensor = mesh["tensor"]
    lanes = math.prod(mesh[axis] for axis in BATCH_AXES)
    rows = shape.rows / lanes
    tokens = rows * shape.length / mesh["sequence"]
    size, hidden = text.hidden_size, text.intermediate_size / tensor
    heads = text.num_attention_heads * text.head_dim / tensor
    keys = text.num_key_value_heads * text.head_dim / tensor
    # Stored by remat policy: a layer's input; also the products with weights; or everything that the backward pass reads.
    kept = {
        "full": size,
        "dots": 3 * size + heads + 2 * keys + 2 * hidden,
        "none": 6 * size + 3 * heads + 4 * keys + 4 * hidden,
    }[sizes.remat]
    layer_weights = size * (2 * heads + 2 * keys + 3 * hidden)
    layer = width * (layer_weights + tokens * (_STREAMS * size + _HEAD_STREAMS * heads + 4 * hidden))
    vocabulary = text.vocab_size / (tensor if text.vocab_size % tensor == 0 else 1)
    # In float32 for one chunk: the gradient of the logits, and the array that the targets are scattered into, before and after.
    # Also the projection, gathered over fsdp, and the hidden states with their gradient.
    head = _HEAD_BUFFERS * 4 * min(_CHUNK, tokens) * vocabulary + width * size * (vocabulary + 2 * tokens)
    patches = shape.images * shape.patches / lanes
    wide = 3 * vision.hidden_size + 3 * vision.intermediate_size / tensor
    seen = patches * (width * (6 * vision.hidden_size + wide) + 4 * vision.patch_dim)
    return HandCount(
        held.weights,
        held.trained,
        held.optimizer,
        held.batch,
        held.trained if sizes.full else 2 * held.trained,
        width * text.num_hidden_layers * tokens * kept,
        layer,
        head,
        seen,
    )


def sizes_of(
    settings: LearnerSettings, recipe: SFTConfig | GRPOConfig, model: ModelConfig, mesh: Mapping[str, int]
) -> LearnerSizes:
    """The sizes of a stage's learner, from its settings.

    Raises:
      ConfigError: a parameter cannot be split over the mesh.
    """
    full, half = not settings.lora.rank, settings.dtype == "bfloat16"
    rules = rules_of(settings.sharding_rules)
    stored = 4 if full or not half else 2
    plain = {path: _share(path, shape, mesh, rules) for path, shape in parameter_shapes(model).items()}
    if full:
        trained = 4 * sum(each for path, each in plain.items() if path.partition(".")[0] not in recipe.freeze)
        weights = stored * sum(each for path, each in plain.items() if path.partition(".")[0] in recipe.freeze)
    else:
        updates = lora_shapes(model, settings.lora.rank, settings.lora.targets)
        frozen = "language" in recipe.freeze
        trained = 0.0 if frozen else 4 * sum(_share(path, shape, mesh, rules) for path, shape in updates.items())
        weights = stored * sum(plain.values())
    # AdamW has two moments of each trained parameter; Muon at most as many.
    held = Held(weights, trained, 2 * trained, _batch_bytes(recipe.batch, model, mesh))
    return LearnerSizes(model, recipe.batch, mesh, settings.remat, half, full, held)


def sampler_bytes(settings: PolicySettings, model: ModelConfig) -> float:
    """Bytes that the engine keeps on each of its chips: its own weights and the caches of all slots.

    Raises:
      ConfigError: a parameter cannot be split over `engine.tensor` chips.
    """
    engine, text, width = settings.sized_engine, model.text, 2 if settings.dtype == "bfloat16" else 4
    mesh = {"dcn": 1, "data": 1, "fsdp": 1, "tensor": engine.tensor, "sequence": 1}
    weights = sum(_share(path, shape, mesh, RULES) for path, shape in parameter_shapes(model).items())
    heads = text.num_key_value_heads / (engine.tensor if text.num_key_value_heads % engine.tensor == 0 else 1)
    caches = 2 * text.num_hidden_layers * engine.num_slots * engine.max_length * heads * text.head_dim
    return width * (weights + caches)


def _share(path: str, shape: tuple[int, ...], mesh: Mapping[str, int], rules: Rules) -> float:
    """Values of a parameter on one chip."""
    split = split_axes(logical_axes(path), shape, mesh, rules, owner=path)
    return math.prod(shape) / math.prod(mesh[axis] for axes in split if axes for axis in axes)


def _batch_bytes(shape: BatchShape, model: ModelConfig, mesh: Mapping[str, int]) -> float:
    lanes = math.prod(mesh[axis] for axis in BATCH_AXES)
    # Ids, three positions, segments, weights and feature indices, of four bytes each.
    tokens = 28 * shape.rows * shape.length / (lanes * mesh["sequence"])
    # The bytes of one frame, and four numbers that place the patch.
    patch = model.vision.patch_dim // model.vision.temporal_patch_size + 16
    return tokens + patch * shape.images * shape.patches / lanes
