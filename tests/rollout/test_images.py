"""Images of episodes are encoded in packed rows, and each gets its own features."""

import io

import numpy as np
import pytest
from PIL import Image

from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.config import VisionConfig
from mmsearch_jax.rollout.images import ImageCache
from mmsearch_jax.settings.rollout import EngineConfig


def picture(shade, width, height):
    """An encoded picture of one shade of grey."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (shade, shade, shade)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("sizes", "shapes"),
    [
        # Patches of 14 x 14: 8, 8 and 16 of them fill half a row of 64.
        ([(56, 28), (28, 56), (56, 56)], [(1, 64)]),
        # 48 and 24 do not fit in one row; four rows would be mostly empty.
        ([(84, 56), (112, 84)], [(1, 64), (1, 64)]),
        # Two rows full, one half full.
        ([(28, 56), (112, 112), (112, 112), (112, 112), (56, 28)], [(4, 64)]),
    ],
)
def test_small_images_share_rows_and_are_told_apart(sizes, shapes):
    calls = []

    def encode(vision):
        """A feature is the mean byte of its merged patch."""
        calls.append(vision.patches.shape[:2])
        return vision.patches.reshape(-1, 4 * 588).mean(axis=1, keepdims=True)

    sizes_of_engine = EngineConfig(extend_rows=(1, 4), patch_buckets=(64,))
    cache = ImageCache(ImageProcessor(min_pixels=28 * 28), VisionConfig(), sizes_of_engine)
    images = [cache.prepare(picture(40 * i + 40, *size)) for i, size in enumerate(sizes)]
    assert cache.encode_missing(images, encode) == len(sizes) and calls == shapes
    for i, (image, (width, height)) in enumerate(zip(images, sizes, strict=True)):
        assert image.features is not None and image.features.shape == (width * height // 28**2, 1)
        np.testing.assert_array_equal(image.features, 40 * i + 40)
    # Warm-up compiles all shapes that are used.
    assert set(shapes) <= {vision.patches.shape[:2] for vision in cache.shapes()}
