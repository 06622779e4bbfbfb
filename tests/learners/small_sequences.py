"""Short random sequences, with and without an image, for the very small policy of the learners' tests."""

import numpy as np

from mmsearch_jax.data.batches import TrainingSequence
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.settings.learning import BatchShape
from tests.models.test_qwen2_5_vl import CONFIG

PLACEHOLDER = CONFIG.image_token_id
SHAPE = BatchShape(rows=2, length=32, images=2, patches=24)


def sequence(seed, length, picture=None):
    """Random tokens; a picture's placeholders begin at the second token."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(7, 64, length)
    if picture is not None:
        ids[1 : 1 + len(picture.patches) // 4] = PLACEHOLDER
    images = [picture] if picture is not None else []
    positions, _ = mrope_positions(ids, [p.grid for p in images], CONFIG)
    weights = (rng.random(length) < 0.5).astype(np.float32)
    return TrainingSequence(ids.astype(np.int32), positions, weights, images, PLACEHOLDER)
