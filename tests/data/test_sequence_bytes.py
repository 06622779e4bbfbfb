"""Sequences that went through bytes are equal, and share images as before."""

import dataclasses

import numpy as np

from mmsearch_jax.data.sequence_bytes import from_bytes, to_bytes
from mmsearch_jax.images.vision_layout import VisionLayout
from tests.learners.small_sequences import sequence
from tests.models.test_qwen2_5_vl import image


def test_sequences_come_back_equal_and_share_their_images():
    layout = VisionLayout(2, 4, 588)
    first, second = image(1, 4, 6), image(2, 4, 4)
    made = [
        dataclasses.replace(one, extras={"advantages": np.full(len(one), i, np.float32)}, layout=layout)
        for i, one in enumerate(
            [sequence(0, 12, first), sequence(1, 7), sequence(2, 15, first), sequence(3, 9, second)]
        )
    ]
    back = from_bytes(to_bytes(made))
    assert len(back) == len(made)
    for one, other in zip(back, made, strict=True):
        for name in ("token_ids", "positions", "loss_weights"):
            found, wanted = getattr(one, name), getattr(other, name)
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
        assert (one.image_token_id, one.layout) == (other.image_token_id, other.layout)
        np.testing.assert_array_equal(one.extras["advantages"], other.extras["advantages"])
        assert [found.grid for found in one.images] == [wanted.grid for wanted in other.images]
        for found, wanted in zip(one.images, other.images, strict=True):
            np.testing.assert_array_equal(found.patches, wanted.patches)
    assert back[0].images[0] is back[2].images[0] and not back[1].images


def test_no_sequences_are_no_bytes():
    assert to_bytes([]) == b"" and from_bytes(b"") == []
