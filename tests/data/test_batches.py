"""Packing: nothing is lost or mixed up, and images are shared if sequences share them."""

import dataclasses

import numpy as np
import pytest

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.data.batches import TrainingSequence, check_patches, empty_batch, join_batches, pack, pack_stream
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_layout import VisionLayout
from mmsearch_jax.settings.learning import BatchShape

IMAGE_TOKEN = 9


def image(rng: np.random.Generator, rows: int = 4, columns: int = 4) -> ProcessedImage:
    return ProcessedImage(rng.integers(0, 256, (rows * columns, 588), dtype=np.uint8), (1, rows, columns))


def sequence(rng: np.random.Generator, length: int, images: list[ProcessedImage] | None = None) -> TrainingSequence:
    images = images or []
    placeholders = sum(len(picture.patches) // 4 for picture in images)
    ids = np.concatenate([np.full(placeholders, IMAGE_TOKEN), rng.integers(10, 99, length - placeholders)])
    positions = np.tile(np.arange(length, dtype=np.int32), (3, 1))
    extras = {"advantages": rng.normal(size=length).astype(np.float32)}
    return TrainingSequence(ids.astype(np.int32), positions, np.ones(length, np.float32), images, IMAGE_TOKEN, extras)


def test_every_sequence_is_packed_once_and_stands_whole_in_its_own_segment():
    rng = np.random.default_rng(0)
    sequences = [sequence(rng, int(rng.integers(2, 40))) for _ in range(30)]
    seen = 0
    waiting = sequences
    while waiting:
        packed, left = pack(waiting, BatchShape(4, 64))
        for i, row, start in packed.places:
            span = slice(start, start + len(waiting[i]))
            np.testing.assert_array_equal(packed.batch.token_ids[row, span], waiting[i].token_ids)
            np.testing.assert_array_equal(packed.batch.extras["advantages"][row, span], waiting[i].extras["advantages"])
            segment = packed.batch.segment_ids[row, start]
            assert segment > 0 and (packed.batch.segment_ids[row] == segment).sum() == len(waiting[i])
            # A sequence's first token has no token before it that predicts it.
            assert packed.batch.loss_weights[row, start] == 0
            seen += 1
        waiting = [waiting[i] for i in left]
    assert seen == len(sequences)


def test_sequences_of_one_group_share_their_image():
    rng = np.random.default_rng(1)
    shared, other = image(rng), image(rng)
    sequences = [sequence(rng, 12, [shared]) for _ in range(6)] + [sequence(rng, 12, [other])]
    packed, left = pack(sequences, BatchShape(4, 32, images=2, patches=16))
    assert not left
    vision = packed.batch.vision
    assert vision is not None and vision.patches.shape[0] == 2
    for i, row, start in packed.places:
        features = packed.batch.feature_index[row, start : start + 4]
        patches = vision.patches.reshape(-1, 4, 588)[features].reshape(-1, 588)
        np.testing.assert_array_equal(patches, sequences[i].images[0].patches)


def test_images_beyond_the_room_wait_for_the_next_batch():
    rng = np.random.default_rng(2)
    stream = [sequence(rng, 12, [image(rng)]) for _ in range(5)]
    batches = list(pack_stream(stream, BatchShape(4, 32, images=2, patches=16)))
    assert [int((batch.token_ids == IMAGE_TOKEN).sum()) // 4 for batch in batches] == [2, 2, 1]


def test_small_images_share_rows_and_every_token_finds_its_own_image():
    rng = np.random.default_rng(6)
    images = [image(rng, 2, 2 * (1 + i % 3)) for i in range(9)]
    sequences = [sequence(rng, 12, [picture]) for picture in images]
    packed, left = pack(sequences, BatchShape(4, 36, images=5, patches=16))
    vision = packed.batch.vision
    assert not left and vision is not None and vision.patches.shape[0] == 5
    # 72 of 80 patches: nine images in five rows.
    assert int((vision.image_segment_ids > 0).sum()) == sum(len(picture.patches) for picture in images) == 72
    for i, row, start in packed.places:
        features = packed.batch.feature_index[row, start : start + len(images[i].patches) // 4]
        found = vision.patches.reshape(-1, 4, 588)[features].reshape(-1, 588)
        np.testing.assert_array_equal(found, images[i].patches)


def test_the_images_of_a_sequence_are_packed_together_or_not_at_all():
    rng = np.random.default_rng(7)
    both = sequence_of_two(rng)
    packed, left = pack([sequence(rng, 20, [image(rng)]), both], BatchShape(2, 32, images=2, patches=16))
    assert left == [1] and [i for i, _, _ in packed.places] == [0]
    with pytest.raises(DataError, match="sequence 0: its 2 images of up to 16 patches do not fit the 1 rows of 16"):
        pack([both], BatchShape(1, 32, images=1, patches=16))


def sequence_of_two(rng: np.random.Generator) -> TrainingSequence:
    """Two images, separated by other tokens."""
    made = sequence(rng, 18, [image(rng)])
    made.token_ids[6:10] = IMAGE_TOKEN
    return dataclasses.replace(made, images=[*made.images, image(rng)])


def test_a_sequence_that_can_never_fit_is_named():
    rng = np.random.default_rng(3)
    with pytest.raises(DataError, match="sequence 1: it has 40 tokens, a row of the batch holds 32"):
        pack([sequence(rng, 8), sequence(rng, 40)], BatchShape(2, 32))


def test_an_image_larger_than_the_room_is_an_error():
    rng = np.random.default_rng(3)
    with pytest.raises(
        DataError, match="sequence 0: its 1 images of up to 24 patches do not fit the 1 rows of 16 patches"
    ):
        pack([sequence(rng, 12, [image(rng, 4, 6)])], BatchShape(1, 32, images=1, patches=16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # sequence() begins with the four placeholders of its image.
        ({8: IMAGE_TOKEN}, "sequence 1: the image placeholders at token 8 have no image"),
        ({4: IMAGE_TOKEN}, "sequence 1: image 0 has 4 tokens, but the run of image placeholders at token 0 has 5"),
        ({2: 50}, "sequence 1: image 0 has 4 tokens, but the run of image placeholders at token 0 has 2"),
        (dict.fromkeys(range(4), 50), "sequence 1: image 0 has no placeholders among the 12 tokens"),
    ],
    ids=["one more run", "a run too long", "a run too short", "no run"],
)
def test_placeholders_that_are_not_those_of_the_images_are_an_error(change, message):
    rng = np.random.default_rng(4)
    broken = sequence(rng, 12, [image(rng)])
    for place, token in change.items():
        broken.token_ids[place] = token
    with pytest.raises(DataError, match=message):
        pack([sequence(rng, 12), broken], BatchShape(1, 32, images=1, patches=16))


def test_arrays_of_unequal_length_are_an_error():
    whole = sequence(np.random.default_rng(5), 12)
    for name in ("loss_weights", "positions", "extras"):
        short = {"loss_weights": whole.loss_weights[:9], "positions": whole.positions[:, :9]}.get(
            name, {"advantages": np.zeros(9, np.float32)}
        )
        with pytest.raises(DataError, match="sequence 0: it has 12 tokens, but .* of length 9"):
            pack([dataclasses.replace(whole, **{name: short})], BatchShape(1, 32))


def test_what_was_left_over_goes_first_when_it_is_urgent():
    rng = np.random.default_rng(5)
    short_first = [sequence(rng, 6), *(sequence(rng, 32) for _ in range(3))]
    _, left = pack(short_first, BatchShape(2, 32))
    assert 0 in left
    packed, left = pack(short_first, BatchShape(2, 32), urgent=1)
    assert 0 not in left and packed.places[0][0] == 0


@pytest.mark.parametrize(("merge", "window"), [(2, 4), (2, 6), (2, 16), (3, 6)])
def test_a_batch_uses_the_layout_of_its_sequences(merge, window):
    """Against windows that are counted patch by patch, for window sizes of 56, 84 and 224, and tokens of 3 x 3 patches."""
    layout = VisionLayout(merge, window, 588)
    shown = image(np.random.default_rng(3), 12, 18)
    tokens = 12 * 18 // merge**2
    ids = np.asarray([*[IMAGE_TOKEN] * tokens, 11, 12], np.int32)
    one = TrainingSequence(
        ids, np.zeros((3, len(ids)), np.int32), np.ones(len(ids), np.float32), [shown], IMAGE_TOKEN, layout=layout
    )
    shape = BatchShape(1, 64, images=1, patches=12 * 18)
    vision = pack([one], shape)[0].batch.vision
    assert vision is not None
    windows = {(row, column): (row // window, column // window) for row in range(12) for column in range(18)}
    found = {}
    for (row, column), segment in zip(vision.positions[0].tolist(), vision.window_segment_ids[0].tolist(), strict=True):
        found.setdefault(segment, set()).add(windows[row, column])
    assert all(len(members) == 1 for members in found.values()) and len(found) == len(set(windows.values()))
    blank = empty_batch(shape, layout=layout).vision
    assert blank is not None and blank.patches.shape == vision.patches.shape
    joined = join_batches([pack([one], shape)[0].batch] * 2, layout)
    assert joined.feature_index.max() == 2 * tokens - 1


def test_patches_that_hold_no_whole_tokens_are_refused_with_the_next_size():
    with pytest.raises(ConfigError, match=r"sft.batch.patches is 24, but 9 patches make a token .*: set it to 27"):
        check_patches(BatchShape(1, 8, 1, 24), VisionLayout(3, 6, 588), "sft.batch")
