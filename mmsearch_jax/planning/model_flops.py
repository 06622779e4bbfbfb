"""Tokens and FLOPs of a program by formula, over all chips.

`Work.model` is the basis of MFU: the count of `learners.throughput` for full batches with one segment per row and one image
per row of patches. `Work.executed` adds what the program computes by its own rules: remat's second forward pass, attention
kernels that recompute scores and skip no window, and low-rank products.
"""

from __future__ import annotations

import dataclasses

import jax

from mmsearch_jax.models.attention import WINDOWS_A_BLOCK
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.planning.abstract import Learner
from mmsearch_jax.settings.learning import BatchShape

_LANES, _BLOCK = 128, 512


@dataclasses.dataclass(frozen=True)
class Work:
    """Attributes:
    tokens: number of tokens of one run, with full batches.
    model: FLOPs that the method needs.
    executed: FLOPs that the program is expected to execute; 0 if no formula exists.
    """

    tokens: float
    model: float
    executed: float

    @classmethod
    def nothing(cls) -> Work:
        """The work of an update without a batch."""
        return cls(0, 0, 0)

    @classmethod
    def learning(cls, learner: Learner) -> Work:
        """Loss and gradients of a batch (with the vision tower frozen)."""
        text, shape = learner.model.text, learner.shape
        weights, head, attention = _text(text, shape)
        vision, vision_executed = _vision(learner.model.vision, shape)
        backward = 2 if learner.full else 1
        # Both operands of attention's products have gradients, also if no weight has.
        model = (1 + backward) * (weights + head) + 3 * _causal(text, shape, exact=True) + vision
        layers, kernels = 1.0 + backward, 1 + 7 / 2
        again = 0.0
        if learner.remat != "none":
            # Remat does not recompute the down projection, because the backward pass does not need its result.
            again = weights - _down(text, shape) if learner.remat == "full" else 0.0
            kernels += 1
        # A trained head is recomputed in the backward pass; a frozen one computes its gradient in the forward pass.
        heads = 4 if learner.full else 2
        executed = layers * weights + again + heads * head + kernels * attention + vision_executed
        if not learner.full:
            executed += _low_rank(learner, shape)
        return cls(shape.rows * shape.length, model, executed)

    @classmethod
    def scoring(cls, learner: Learner) -> Work:
        """Log-probs of a batch."""
        text, shape = learner.model.text, learner.shape
        weights, head, attention = _text(text, shape)
        vision, vision_executed = _vision(learner.model.vision, shape)
        low_rank = 0.0 if learner.full else _low_rank(learner, shape) / 4
        return cls(
            shape.rows * shape.length,
            weights + head + _causal(text, shape, exact=True) + vision,
            weights + head + attention + vision_executed + low_rank,
        )

    @classmethod
    def feeding(cls, model: ModelConfig, tokens: float, pairs: float) -> Work:
        """Tokens fed through the decoder's layers, with this number of query-key pairs."""
        text = model.text
        return cls(tokens, 2 * tokens * text.num_hidden_layers * _layer(text) + _pairs(text, pairs), 0)

    @classmethod
    def sampling(cls, model: ModelConfig, tokens: float, pairs: float) -> Work:
        """Tokens that are sampled (each with the vocabulary projection) and fed."""
        fed = cls.feeding(model, tokens, pairs)
        return cls(tokens, fed.model + 2 * tokens * model.text.hidden_size * model.text.vocab_size, 0)


def _layer(text: TextConfig) -> float:
    """Number of weights in a layer's matrices."""
    heads, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    return text.hidden_size * (2 * heads + 2 * keys + 3 * text.intermediate_size)


def _pairs(text: TextConfig, pairs: float) -> float:
    return 4 * text.num_hidden_layers * pairs * text.num_attention_heads * text.head_dim


def _text(text: TextConfig, shape: BatchShape) -> tuple[float, float, float]:
    """Forward FLOPs: of the layers' weights, of the vocabulary projection, of the attention kernel's blocks."""
    tokens = shape.rows * shape.length
    weights = 2 * tokens * text.num_hidden_layers * _layer(text)
    return weights, 2 * tokens * text.hidden_size * text.vocab_size, _causal(text, shape, exact=False)


def _causal(text: TextConfig, shape: BatchShape, *, exact: bool) -> float:
    """FLOPs of pairs below the diagonal; if not exact, of all pairs in blocks that the diagonal crosses."""
    beside = 1 if exact else min(_BLOCK, shape.length)
    return _pairs(text, shape.rows * shape.length * (shape.length + beside) / 2)


def _down(text: TextConfig, shape: BatchShape) -> float:
    return 2 * shape.rows * shape.length * text.num_hidden_layers * text.hidden_size * text.intermediate_size


def _low_rank(learner: Learner, shape: BatchShape) -> float:
    """FLOPs of the low-rank products: two per target in the forward pass, its recomputation, and each backward pass."""
    # Each element of an update is one multiplication per token.
    elements = sum(leaf.size for leaf in jax.tree.leaves(learner.state.params))
    return 4 * 2 * shape.rows * shape.length * elements


def _vision(config: VisionConfig, shape: BatchShape) -> tuple[float, float]:
    """Forward FLOPs of rows that are each filled by one image: those that the method needs, and those executed (as in
    `models/attention.py`: the kernel computes all pairs with padded heads, windowed layers a block and its neighbours)."""
    patches = shape.images * shape.patches
    size = config.hidden_size
    joined = size * config.spatial_merge_size**2
    weights = config.depth * size * (4 * size + 3 * config.intermediate_size) + config.patch_dim * size
    merger = joined * (joined + config.out_hidden_size) / config.spatial_merge_size**2
    products = 2 * patches * (weights + merger)
    full = len(config.fullatt_block_indexes)
    window, windowed = config.window_patches**2, config.depth - full
    needed = 4 * size * patches * (full * shape.patches + windowed * min(window, shape.patches))
    block = min(_BLOCK, -(-shape.patches // _LANES) * _LANES) if shape.patches else 1
    padded = -(-shape.patches // block) * block
    width = -(-config.head_dim // _LANES) * _LANES * config.num_heads
    kernel = 4 * width * shape.images * padded**2
    # Windows are processed in blocks, each of which sees a window's length on either side.
    queries = WINDOWS_A_BLOCK * window
    keys = queries + 2 * window
    blocks = 4 * size * shape.images * -(-shape.patches // queries) * queries * keys
    return products + needed, products + full * kernel + windowed * (blocks if shape.patches > keys else kernel)
