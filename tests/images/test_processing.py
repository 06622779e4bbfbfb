"""Image files to patches (the comparison with transformers' processor is in tests/parity)."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmsearch_jax.core.errors import CheckpointError, ImageError
from mmsearch_jax.images.processing import ImageProcessor, load_image, smart_resize


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_patches_follow_the_merge_blocks_one_by_one():
    image = noise(84, 56)
    processed = ImageProcessor(min_pixels=28 * 28)(image)
    pixels = np.asarray(image)
    expected = []
    for block_row in range(2):
        for block_column in range(3):
            for inner_row in range(2):
                for inner_column in range(2):
                    y, x = 14 * (2 * block_row + inner_row), 14 * (2 * block_column + inner_column)
                    expected.append(pixels[y : y + 14, x : x + 14].transpose(2, 0, 1).ravel())
    assert processed.grid == (1, 4, 6)
    np.testing.assert_array_equal(processed.patches, expected)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_resized_sides_are_multiples_within_the_pixel_bounds(height, width):
    low, high = 56 * 56, 224 * 168
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ImageError, match="too narrow"):
            smart_resize(height, width, 28, low, high)
        return
    new_height, new_width = smart_resize(height, width, 28, low, high)
    assert new_height % 28 == 0 and new_width % 28 == 0 and new_height * new_width >= low
    # One side cannot be smaller than a block, so a very narrow image may exceed the upper bound.
    assert new_height * new_width <= high or 28 in (new_height, new_width)


def test_a_scene_takes_forty_eight_tokens():
    processor = ImageProcessor(max_pixels=224 * 168)
    processed = processor(noise(448, 336))
    assert processed.grid == (1, 12, 16) and processor.num_tokens(processed.grid) == 48


def test_the_processor_survives_the_round_trip(tmp_path):
    processor = ImageProcessor(min_pixels=3136, max_pixels=37632)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor.to_hf()))
    assert ImageProcessor.from_pretrained(tmp_path) == processor


def test_a_missing_or_damaged_processor_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no preprocessor_config.json"):
        ImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        ImageProcessor.from_pretrained(tmp_path)


def test_another_normalisation_than_the_vision_tower_s_is_refused(tmp_path):
    record = ImageProcessor().to_hf() | {"image_mean": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"has image_mean \[0.5, 0.5, 0.5\]: the vision tower supports only"):
        ImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"resample": 2}, "resample"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"image_mean": "clip"}, "image_mean clip"),
        ({"image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor"),
        ({"size": {"height": 224, "width": 224}}, "expected shortest_edge and longest_edge"),
        ({"min_pixels": 10**9}, "above max_pixels"),
        ({"patch_size": "14"}, "patch_size '14'"),
    ],
)
def test_a_step_that_is_not_computed_is_refused_by_name(change, named, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(ImageProcessor().to_hf() | change))
    with pytest.raises(CheckpointError, match=named):
        ImageProcessor.from_pretrained(tmp_path)


def test_what_transformers_writes_for_its_defaults_is_read(tmp_path):
    defaults = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "resample": 3}
    absent = dict.fromkeys(("do_center_crop", "do_pad", "crop_size", "device", "data_format"))
    record = ImageProcessor().to_hf() | defaults | absent | {"rescale_factor": 0.00392156862745098}
    record |= {"image_processor_type": "Qwen2VLImageProcessorFast", "min_pixels": None, "max_pixels": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(record))
    assert ImageProcessor.from_pretrained(tmp_path) == ImageProcessor()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16"])
def test_every_mode_becomes_rgb(mode):
    assert load_image(Image.new(mode, (8, 6))).mode == "RGB"


def test_transparency_lies_over_white():
    half = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    half.putpixel((1, 0), (200, 0, 0, 0))
    loaded = load_image(encoded(half, "PNG"))
    assert loaded.getpixel((0, 0)) == (200, 0, 0) and loaded.getpixel((1, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_brightness():
    grey = Image.fromarray(np.array([[0, 128 << 8, 65535]], np.uint16))
    loaded = load_image(encoded(grey, "PNG"))
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]


def test_the_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(noise(60, 40), "JPEG", exif=exif)).size == (40, 60)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/file.png", "no image at no/such/file.png"),
        ("tests", "tests is a folder"),
        (b"", "not an image that Pillow can read"),
        (b"plain text", "not an image that Pillow can read"),
        (Image.new("RGB", (0, 5)), "not empty"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(source, message):
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ImageError, match="no pixels"):
        ImageProcessor()(Image.new("RGB", (0, 0)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_damage_never_gives_another_error_than_ours(kind):
    # Covers every header, because an EXIF value of the wrong type raises struct.error in Pillow.
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    data = encoded(noise(24, 16), kind, **options)
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for trial in range(600):
        damaged = bytearray(data)
        if trial % 3 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        else:
            for _ in range(rng.integers(1, 6)):
                damaged[rng.integers(min(len(damaged), 200))] = rng.integers(256)
        try:
            image = load_image(bytes(damaged))
            outcomes["read"] += image.mode == "RGB"
        except ImageError:
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == 600 and outcomes["refused"] > 0
