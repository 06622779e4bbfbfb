"""Images in rows of patches: each in a place of its own, apart from its neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch_jax.data.image_processing import ImageProcessor, ProcessedImage
from mmsearch_jax.data.vision_inputs import PatchRows, pack_images
from tests.data.test_image_processing import noise


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 6))
def test_placed_images_lie_within_a_row_and_never_on_one_another(sizes, num_rows):
    rows, taken, refused = PatchRows(num_rows, 40), np.zeros((num_rows, 40), bool), 0
    for size in sizes:
        places = rows.place([size])
        if places is None:
            refused += 1
            assert (40 - taken.sum(axis=1)).max() < size
            continue
        [(row, start)] = places
        assert start + size <= 40 and not taken[row, start : start + size].any()
        taken[row, start : start + size] = True
    assert taken.sum() == sum(sizes) or refused


def test_of_several_images_all_are_placed_or_none():
    rows = PatchRows(2, 16)
    assert rows.place([8, 12, 16]) is None
    assert rows.place([12, 16]) == [(0, 0), (1, 0)]
    assert rows.place([8]) is None and rows.place([4]) == [(0, 12)] and rows.place([]) == []


def test_small_images_share_a_row_and_their_windows_and_frames_are_their_own():
    processor = ImageProcessor(min_pixels=28 * 28)
    images = [processor(noise(56, 28)), processor(noise(84, 56)), processor(noise(28, 28))]
    vision, offsets = pack_images(images, num_rows=4)
    assert vision.patches.shape == (4, 24, 588) and offsets == [0, 6, 2]
    assert [int((row > 0).sum()) for row in vision.image_segment_ids] == [12, 24, 0, 0]
    assert vision.image_segment_ids[0].tolist() == vision.window_segment_ids[0].tolist() == [1] * 8 + [2] * 4 + [0] * 12
    for image, offset in zip(images, offsets, strict=True):
        row, start = divmod(4 * offset, 24)
        np.testing.assert_array_equal(vision.patches[row, start : start + len(image.patches)], image.patches)
    with pytest.raises(ValueError, match="3 images of up to 24 patches do not fit 1 rows"):
        pack_images(images, num_rows=1)


def test_windows_of_a_second_image_are_numbered_on():
    wide, small = (ProcessedImage(np.zeros((h * w, 588), np.uint8), (1, h, w)) for h, w in ((8, 16), (4, 4)))
    vision, _ = pack_images([wide, small], row_patches=160, num_rows=1)
    assert np.unique(vision.window_segment_ids[0], return_counts=True)[1].tolist() == [16, 64, 64, 16]
    assert set(vision.window_segment_ids[0][128:144]) == {3} and set(vision.image_segment_ids[0][128:144]) == {2}


def test_ragged_windows_are_cut_at_the_edge_of_the_image():
    image = ImageProcessor()(noise(14 * 18, 14 * 10))
    vision, _ = pack_images([image])
    place, window = vision.positions[0], vision.window_segment_ids[0]
    assert image.grid == (1, 10, 18)
    by_place = {(int(y) // 8, int(x) // 8): set() for y, x in place}
    for (y, x), number in zip(place, window, strict=True):
        by_place[int(y) // 8, int(x) // 8].add(int(number))
    assert all(len(numbers) == 1 for numbers in by_place.values()) and len(by_place) == 6
    assert sorted(np.unique(window, return_counts=True)[1].tolist()) == [4, 16, 16, 16, 64, 64]
