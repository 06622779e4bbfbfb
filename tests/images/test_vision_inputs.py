"""Images in rows of patches: no two images overlap or share a window or a frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch_jax.images.processing import ImageProcessor, ProcessedImage
from mmsearch_jax.images.vision_inputs import PatchRows, pack_images
from tests.images.test_processing import noise

GRIDS = st.tuples(st.integers(1, 2), st.integers(1, 6).map(lambda n: 2 * n), st.integers(1, 6).map(lambda n: 2 * n))


def image(grid, value=0):
    """An image whose patches all hold its value."""
    return ProcessedImage(np.full((grid[0] * grid[1] * grid[2], 588), value, np.uint8), grid)


@given(
    st.lists(st.lists(GRIDS.map(lambda grid: image(grid)), max_size=3), max_size=12),
    st.integers(1, 6),
    st.integers(24, 80).map(lambda n: 4 * n),
)
def test_images_placed_a_few_at_a_time_never_overlap_and_are_packed_where_they_were_placed(
    groups, num_rows, row_patches
):
    rows = PatchRows(num_rows, row_patches)
    used = np.zeros((num_rows, row_patches), int)
    places, placed = [], []
    for group in groups:
        found = rows.place([len(each.patches) for each in group])
        if found is None:
            continue
        assert len(found) == len(group)
        for (row, start), each in zip(found, group, strict=True):
            assert start + len(each.patches) <= row_patches
            used[row, start : start + len(each.patches)] += 1
        places += found
        placed += group
    assert used.max(initial=0) <= 1
    if placed:
        vision, numbers = pack_images(placed, row_patches, num_rows)
        assert [min(own) for own in numbers] == [(row * row_patches + start) // 4 for row, start in places]
        np.testing.assert_array_equal(vision.image_segment_ids > 0, used > 0)


@given(st.lists(GRIDS, min_size=1, max_size=8))
def test_every_image_of_a_shared_row_has_windows_and_frames_of_its_own(grids):
    images = [image(grid, number + 1) for number, grid in enumerate(grids)]
    vision, numbers = pack_images(images, row_patches=288 * 2)
    owner = vision.patches[..., 0]
    for ids in (vision.window_segment_ids, vision.image_segment_ids):
        assert ((ids > 0) == (owner > 0)).all()
        pairs = {
            (row, int(i), int(o)) for row in range(len(ids)) for i, o in zip(ids[row], owner[row], strict=True) if i
        }
        assert len({(row, i) for row, i, _ in pairs}) == len(pairs)
    for number, (grid, own_numbers) in enumerate(zip(grids, numbers, strict=True), 1):
        first, size = 4 * min(own_numbers), grid[0] * grid[1] * grid[2]
        assert sorted(own_numbers) == [*range(first // 4, (first + size) // 4)]
        span = slice(first, first + size)
        assert (vision.patches.reshape(-1, 588)[span] == number).all()
        alone, _ = pack_images([images[number - 1]])
        np.testing.assert_array_equal(vision.positions.reshape(-1, 2)[span], alone.positions[0])
        for ids, own in (
            (vision.window_segment_ids, alone.window_segment_ids),
            (vision.image_segment_ids, alone.image_segment_ids),
        ):
            shifted = ids.reshape(-1)[span]
            np.testing.assert_array_equal(shifted - shifted.min() + 1, own[0])


@given(st.lists(st.integers(1, 40), max_size=6), st.integers(40, 50))
def test_as_many_images_as_rows_always_fit(sizes, row_patches):
    assert PatchRows(6, row_patches).place(sizes) is not None


def test_each_image_goes_into_the_fullest_row_with_room():
    processor = ImageProcessor(min_pixels=28 * 28)
    images = [processor(noise(56, 28)), processor(noise(84, 56)), processor(noise(28, 28))]
    vision, numbers = pack_images(images, num_rows=4)
    assert vision.patches.shape == (4, 24, 588) and [min(own) for own in numbers] == [0, 6, 2]
    assert [int((row > 0).sum()) for row in vision.image_segment_ids] == [12, 24, 0, 0]
    assert len(pack_images(images)[0].patches) == 2
    with pytest.raises(ValueError, match="3 images of up to 24 patches do not fit 1 rows of 24"):
        pack_images(images, num_rows=1)


def test_images_that_do_not_all_fit_take_no_room():
    rows = PatchRows(2, 10)
    assert rows.place([6, 6, 6]) is None
    assert rows.place([10, 10]) == [(0, 0), (1, 0)]


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


@given(st.tuples(GRIDS, GRIDS))
def test_windows_stand_side_by_side_and_tokens_find_their_features_in_raster_order(grids):
    images = [ProcessedImage(np.zeros((t * h * w, 588), np.uint8), (t, h, w)) for t, h, w in grids]
    for each in images:
        # Every patch holds the index of its merged patch among the image's tokens.
        each.patches[:] = (np.arange(len(each.patches)) // 4)[:, None]
    vision, numbers = pack_images(images, row_patches=288 * 2)
    for ids in (vision.window_segment_ids, vision.image_segment_ids):
        assert all((np.diff(row[row > 0]) >= 0).all() for row in ids)
    merged = vision.patches.reshape(-1, 4, 588)
    for each, own in zip(images, numbers, strict=True):
        np.testing.assert_array_equal(merged[own], each.patches.reshape(-1, 4, 588))
