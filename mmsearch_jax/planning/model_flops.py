"""What the method needs of a program, by hand count: tokens and FLOPs, all chips together.

`Work.model` is what MFU is measured against: `learners.throughput`'s count for batches that are full, one segment a row and one
image a row of patches. `Work.executed` adds what the program must compute besides by its own rules: remat's second forward
pass, attention kernels that compute again and skip no window, low-rank products.
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
    tokens: that one run works on, full.
    model: FLOPs that the method needs.
    executed: FLOPs that the program is expected to execute; 0 where it is not counted by hand.
    """

    tokens: float
    model: float
    executed: float

    @classmethod
    def nothing(cls) -> Work:
        """Of an update without a batch."""
        return cls(0, 0, 0)

    @classmethod
    def learning(cls, learner: Learner) -> Work:
        """A batch's loss and gradients (the vision tower frozen)."""
        text, shape = learner.model.text, learner.shape
        weights, head, attention = _text(text, shape)
        vision, vision_executed = _vision(learner.model.vision, shape)
        backward = 2 if learner.full else 1
        model = (1 + backward) * (weights + head + _causal(text, shape, exact=True)) + vision
        layers, kernels = 1.0 + backward, 1 + 7 / 2
        again = 0.0
        if learner.remat != "none":
            # The recomputation leaves out the down projection, whose result nothing in the backward pass needs.
            again = weights - _down(text, shape) if learner.remat == "full" else 0.0
            kernels += 1
        # A trained head is computed again in the backward pass; one that is not makes its gradient at once.
        heads = 4 if learner.full else 2
        executed = layers * weights + again + heads * head + kernels * attention + vision_executed
        if not learner.full:
            executed += _low_rank(learner, shape)
        return cls(shape.rows * shape.length, model, executed)

    @classmethod
    def scoring(cls, learner: Learner) -> Work:
        """A batch's log-probs."""
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
        """Tokens that go through the decoder's layers, with so many pairs of a query and a key."""
        text = model.text
        return cls(tokens, 2 * tokens * text.num_hidden_layers * _layer(text) + _pairs(text, pairs), 0)

    @classmethod
    def sampling(cls, model: ModelConfig, tokens: float, pairs: float) -> Work:
        """Tokens that are sampled, each with the vocabulary projection, and fed."""
        fed = cls.feeding(model, tokens, pairs)
        return cls(tokens, fed.model + 2 * tokens * model.text.hidden_size * model.text.vocab_size, 0)


def _layer(text: TextConfig) -> float:
    """Weights of a layer's matrices."""
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
    """Of pairs under the diagonal; not exact: of blocks that the diagonal crosses, too."""
    beside = 1 if exact else min(_BLOCK, shape.length)
    return _pairs(text, shape.rows * shape.length * (shape.length + beside) / 2)


def _down(text: TextConfig, shape: BatchShape) -> float:
    return 2 * shape.rows * shape.length * text.num_hidden_layers * text.hidden_size * text.intermediate_size


def _low_rank(learner: Learner, shape: BatchShape) -> float:
    """Two thin products a target, forward, again, and two for each backward."""
    # Each element of an update is one multiplication a token.
    elements = sum(leaf.size for leaf in jax.tree.leaves(learner.state.params))
    return 4 * 2 * shape.rows * shape.length * elements


def _vision(config: VisionConfig, shape: BatchShape) -> tuple[float, float]:
    """Forward FLOPs of rows full of one image each: what the method needs, and what is done (`models/attention.py`: in the
    kernel all pairs, and wide heads; of windows a block's and its neighbours')."""
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
    # Windows go in blocks, each of which sees a window's length on either side.
    queries = WINDOWS_A_BLOCK * window
    keys = queries + 2 * window
    blocks = 4 * size * shape.images * -(-shape.patches // queries) * queries * keys
    return products + needed, products + full * kernel + windowed * (blocks if shape.patches > keys else kernel)
