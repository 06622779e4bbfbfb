"""Grounding DINO's inputs and outputs, against values computed by hand; tests/parity compares with transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch_jax.core.errors import ConfigError
from tests.tiny_grounding_dino import save_tokenizer
from tools_server.grounders.dino import (
    DinoFormat,
    ImageScaling,
    corners,
    pixel_values,
    prompt,
    read_scaling,
    scaled_size,
)


@pytest.fixture
def form(tmp_path: Path) -> DinoFormat:
    save_tokenizer(tmp_path)
    return DinoFormat(tmp_path, text_threshold=0.25)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("The FLAG on the left", "the flag on the left."),
        ("a dog. a cat?", "a dog a cat."),
        ("  the\n flag.", "the flag."),
        ("Ω-shaped  tower", "ω-shaped tower."),
    ],
)
def test_a_prompt_is_one_phrase_in_lower_case_with_a_dot(expression: str, wanted: str):
    assert prompt(expression) == wanted


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((1600, 1200), (1066, 800)),  # the short side becomes 800
        ((1200, 1600), (800, 1066)),
        ((2000, 500), (1333, 333)),  # the long side would be 3200: 1333 / 2000 of both
        ((800, 800), (800, 800)),
        ((8, 8), (800, 800)),
    ],
)
def test_pictures_are_scaled_by_the_short_side_within_the_long_ones_bound(size, wanted):
    assert scaled_size(size, ImageScaling()) == wanted


def test_pixels_are_normalised_by_channel():
    grey = Image.new("RGB", (10, 10), (255, 0, 51))
    values = pixel_values(grey, ImageScaling(10, 20, (0.5, 0.5, 0.1), (0.5, 0.25, 0.1)))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, 0, 0], [1.0, -2.0, 1.0], atol=1e-6)


def test_boxes_are_centre_and_sides_as_shares():
    np.testing.assert_allclose(corners(np.array([[0.5, 0.25, 0.2, 0.1]]), (200, 100)), [[80, 20, 120, 30]])


def test_inputs_have_the_models_names_shapes_and_kinds(form: DinoFormat):
    inputs = form.inputs(Image.new("RGB", (400, 200)), "the flag")
    assert inputs.pixel_values.shape == (1, 3, 666, 1333)
    assert inputs.pixel_mask.shape == (1, 666, 1333) and inputs.pixel_mask.all()
    # [CLS] the flag . [SEP]
    assert inputs.input_ids.tolist() == [[101, 200, 202, 1012, 102]]
    assert inputs.attention_mask.tolist() == [[1] * 5] and inputs.token_type_ids.tolist() == [[0] * 5]
    assert {inputs.input_ids.dtype, inputs.pixel_mask.dtype} == {np.dtype(np.int64)}


def test_a_long_expression_is_cut_and_still_ends_with_its_dot(form: DinoFormat):
    ids = form.inputs(Image.new("RGB", (9, 9)), "the flag " * 300).input_ids[0].tolist()
    assert len(ids) == 256
    assert (ids[0], ids[-2:]) == (101, [1012, 102])
    assert set(ids[1:-2]) == {200, 202}


def test_only_what_fits_a_word_is_a_detection(form: DinoFormat):
    ids = form.inputs(Image.new("RGB", (100, 100)), "the flag").input_ids
    logits = np.full((1, 4, 256), -np.inf, np.float32)
    logits[0, 0, 2] = 1.0  # "flag"
    logits[0, 1, 3] = 5.0  # the dot
    logits[0, 2, 0] = 5.0  # [CLS]
    logits[0, 3, 1] = -2.0  # "the", sigmoid 0.12, below the threshold
    found = form.detections(ids, logits, np.full((1, 4, 4), 0.5, np.float32), (100, 100))
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(-1.0))])
    assert found.boxes.tolist() == [[25, 25, 75, 75]]


def test_scaling_is_read_from_the_checkpoint(tmp_path: Path):
    assert read_scaling(tmp_path) == ImageScaling()
    own = {"size": {"shortest_edge": 400, "longest_edge": 500}, "image_mean": [0, 0, 0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    assert read_scaling(tmp_path) == ImageScaling(400, 500, (0.0, 0.0, 0.0))


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 800}', '{"image_mean": [1]}'])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json (cannot be read|is not a JSON object)"):
        read_scaling(tmp_path)


def test_a_checkpoint_without_a_tokenizer_is_said_so(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no tokenizer\.json in"):
        DinoFormat(tmp_path, 0.25)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json (cannot be read|is not a JSON object)"):
        DinoFormat(tmp_path, 0.25)
