"""The hand count: an estimate of a learner program's memory on one chip, item by item, without compilation.

It prunes `search` and explains the compiler's figure (docs/planning.md compares the two). Memory before the step is exact, by
shapes and shardings. Memory of the step itself is the sum of the large arrays that exist at one time. Compare it with the
compiler's peak: the compiler's total includes fragmentation.
"""

from __future__ import annotations

import dataclasses
import math

from mmsearch_jax.distributed.mesh import BATCH_AXES
from mmsearch_jax.planning.abstract import Learner, batch_shapes, bytes_per_chip

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


def hand_count(learner: Learner) -> HandCount:
    """The hand count of the program that computes a batch's loss and gradients."""
    text, vision, shape = learner.model.text, learner.model.vision, learner.shape
    mesh, state = learner.mesh.mesh.shape, learner.state
    width = 2 if learner.half else 4
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
    }[learner.remat]
    layer_weights = size * (2 * heads + 2 * keys + 3 * hidden)
    layer = width * (layer_weights + tokens * (_STREAMS * size + _HEAD_STREAMS * heads + 4 * hidden))
    vocabulary = text.vocab_size / (tensor if text.vocab_size % tensor == 0 else 1)
    # In float32 for one chunk: the gradient of the logits, and the array that the targets are scattered into, before and after.
    # Also the projection, gathered over fsdp, and the hidden states with their gradient.
    head = _HEAD_BUFFERS * 4 * min(_CHUNK, tokens) * vocabulary + width * size * (vocabulary + 2 * tokens)
    gradients = bytes_per_chip(state.params)
    patches = shape.images * shape.patches / lanes
    wide = 3 * vision.hidden_size + 3 * vision.intermediate_size / tensor
    seen = patches * (width * (6 * vision.hidden_size + wide) + 4 * vision.patch_dim)
    batch = learner.mesh.abstract_batch(batch_shapes(shape, vision))
    return HandCount(
        bytes_per_chip(state.frozen),
        bytes_per_chip(state.params),
        bytes_per_chip(state.opt_state),
        bytes_per_chip(batch),
        gradients if learner.full else 2 * gradients,
        width * text.num_hidden_layers * tokens * kept,
        layer,
        head,
        seen,
    )
