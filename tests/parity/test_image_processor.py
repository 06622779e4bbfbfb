"""Our image processor and vision inputs against transformers' Qwen2-VL processor (its Pillow backend)."""

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.vision import model_input

SIZES = [(448, 336), (224, 168), (28, 28), (57, 91), (1, 3), (30, 1000), (640, 481), (33, 2000), (1500, 1100)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("max_pixels", [224 * 168, 28 * 28 * 1280])
def test_patches_and_grid_equal(size, max_pixels):
    rng = np.random.default_rng(size[0])
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    mine = ImageProcessor(max_pixels=max_pixels)(image)
    theirs = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=max_pixels)(images=[image], return_tensors="np")
    assert mine.grid == tuple(theirs["image_grid_thw"][0])
    np.testing.assert_allclose(model_input(mine.patches, 2), theirs["pixel_values"], atol=1e-6)
