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


def test_equal_bytes_prepared_around_an_eviction_are_encoded_once_and_all_get_the_features():
    calls = []

    def encode(vision):
        calls.append(vision)
        return vision.patches.reshape(-1, 4 * 588).mean(axis=1, keepdims=True)

    cache = ImageCache(ImageProcessor(min_pixels=28 * 28), VisionConfig(), EngineConfig(image_cache=1))
    before = cache.prepare(picture(40, 56, 56))
    other = cache.prepare(picture(80, 28, 28))
    again = cache.prepare(picture(40, 56, 56))
    assert before is not again
    assert cache.encode_missing([before, other, again], encode) == 2 and len(calls) == 1
    for image, shade in ((before, 40), (other, 80), (again, 40)):
        np.testing.assert_array_equal(image.features, shade)


@pytest.mark.parametrize("window_size", [56, 84, 224])
def test_warm_up_and_encoding_use_the_windows_of_the_config(window_size):
    seen = []

    def encode(vision):
        seen.append(vision.window_segment_ids.max())
        return np.zeros((vision.patches.shape[0] * vision.patches.shape[1] // 4, 1))

    cache = ImageCache(ImageProcessor(), VisionConfig(window_size=window_size), EngineConfig())
    cache.encode_missing([cache.prepare(picture(9, 224, 224))], encode)
    assert seen == [(-(-224 // window_size)) ** 2]
