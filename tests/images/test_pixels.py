"""The compiled loops against Pillow and NumPy."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch_jax.images import pixels


def noise(height, width):
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillows(array, height, width):
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BICUBIC))


SIDES = st.integers(1, 300)


@settings(deadline=None, max_examples=200)
@given(SIDES, SIDES, SIDES, SIDES)
def test_any_resize_equals_pillow_s_to_the_bit(height, width, new_height, new_width):
    array = noise(height, width)
    np.testing.assert_array_equal(pixels.resize(array, new_height, new_width), pillows(array, new_height, new_width))


@pytest.mark.parametrize(
    "size", [(756, 1036), (700, 1008), (784, 1008), (364, 476), (768, 1036), (756, 1024), (768, 1024)]
)
def test_a_camera_s_size_equals_pillow_s_to_the_bit(size):
    # Horizontal or vertical pass first, only one pass, no pass.
    array = noise(768, 1024)
    np.testing.assert_array_equal(pixels.resize(array, *size), pillows(array, *size))


def test_extremes_stay_within_bytes():
    array = np.zeros((40, 40, 3), np.uint8)
    array[::2] = 255
    np.testing.assert_array_equal(pixels.resize(array, 57, 91), pillows(array, 57, 91))


def test_a_resize_of_a_view_is_that_of_its_values():
    array = noise(60, 80)[::2, ::-1]
    np.testing.assert_array_equal(pixels.resize(array, 28, 56), pillows(np.ascontiguousarray(array), 28, 56))


def test_patches_come_in_blocks_and_channel_by_channel():
    array = noise(56, 84)
    blocks = array.reshape(2, 2, 14, 3, 2, 14, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    np.testing.assert_array_equal(pixels.cut(array, 14, 2), blocks.reshape(24, 588))


def test_without_a_writable_folder_the_loops_are_compiled_in_memory():
    # A locator without a writable folder, as in a container with a read-only root and home.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import numpy as np\nfrom mmsearch_jax.images import pixels\n"
            "print(pixels.cut(np.ones((28, 28, 3), np.uint8), 14, 2).sum())",
        ],
        env={**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == str(28 * 28 * 3), done.stderr
