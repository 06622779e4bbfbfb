"""Inputs and outputs of Grounding DINO in Pillow and numpy, the same for its torch model and its ONNX exports.

Method: arXiv 2303.05499; sizes, names and constants as in transformers' GroundingDinoProcessor, which the tests compare with.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.json_files import json_object
from tools_server.grounders.choose import Detections

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class ImageScaling:
    """How pictures are preprocessed.

    Attributes:
      shortest, longest: the short side becomes `shortest` pixels, unless the long one would then exceed `longest`.
      mean, std: by channel (RGB), of pixels in 0..1.
    """

    shortest: int = 800
    longest: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class DinoInputs:
    """The model's inputs; the fields have the model's names.

    Attributes:
      pixel_values: float32 [1, 3, H, W].
      pixel_mask: int64 [1, H, W], all 1: nothing is padded.
      input_ids, token_type_ids, attention_mask: int64 [1, L].
    """

    pixel_values: np.ndarray
    pixel_mask: np.ndarray
    input_ids: np.ndarray
    token_type_ids: np.ndarray
    attention_mask: np.ndarray


class DinoFormat:
    """Makes a model's inputs and reads its outputs.

    Args:
      folder: a checkpoint's folder as published: tokenizer.json, config.json, preprocessor_config.json (the last two only
        for values that differ from the defaults).
      text_threshold: see `DetectionRules`.

    Raises:
      ConfigError: no tokenizer in it, or a file that cannot be read.
    """

    def __init__(self, folder: Path, text_threshold: float):
        self._tokenizer = _tokenizer(folder, int(read_json(folder / "config.json").get("max_text_len", 256)))
        dot = self._tokenizer.token_to_id(".")
        if dot is None:
            raise ConfigError(
                f"{folder}/tokenizer.json has no token for the dot that ends a phrase: not Grounding DINO's"
            )
        self._dot = dot
        self._scaling = read_scaling(folder)
        self._text_threshold = text_threshold

    def inputs(self, image: Image.Image, expression: str) -> DinoInputs:
        """For an upright RGB image, and what to find in it."""
        pixels = pixel_values(image, self._scaling)[None]
        encoded = self._tokenizer.encode(prompt(expression))
        ids, types, attention = (
            np.array([values], np.int64) for values in (encoded.ids, encoded.type_ids, encoded.attention_mask)
        )
        # The dot stays before the end even if the text is cut: without it the words do not attend to each other.
        ids[0, -2] = self._dot
        return DinoInputs(pixels, np.ones((1, *pixels.shape[2:]), np.int64), ids, types, attention)

    def detections(
        self, input_ids: np.ndarray, logits: np.ndarray, pred_boxes: np.ndarray, size: tuple[int, int]
    ) -> Detections:
        """The model's detections.

        Args:
          input_ids: int64 [1, L].
          logits: float [1, Q, T], how well each of Q queries fits each token (T at least L; -inf where there is none).
          pred_boxes: float [1, Q, 4], centre and sides as shares of the picture.
          size: width and height of the picture as it was given.
        """
        scores = _sigmoid(logits[0])
        words = [place for place, token in enumerate(input_ids[0]) if self._is_word(int(token))]
        fits_a_word = (scores[:, words] > self._text_threshold).any(1)
        return Detections(corners(pred_boxes[0], size)[fits_a_word], scores.max(1)[fits_a_word])

    def _is_word(self, token: int) -> bool:
        """Whether a token has content, and is not a begin or end token."""
        text = self._tokenizer.id_to_token(token) or ""
        return text not in ("[CLS]", "[SEP]") and any(letter.isalnum() for letter in text)


def prompt(expression: str) -> str:
    """The expression as the model was trained on it: lower case, one phrase, a dot at its end.

    Dots and question marks inside would split it into several phrases.
    """
    return " ".join(re.sub(r"[.?]", " ", expression.lower()).split()) + "."


def scaled_size(size: tuple[int, int], scaling: ImageScaling) -> tuple[int, int]:
    """Width and height to which a picture of this width and height is resized."""
    short, long = min(size), max(size)
    wanted = float(scaling.shortest)
    if long / short * wanted > scaling.longest:
        wanted = scaling.longest * short / long
    new_short = round(wanted)
    if short == new_short:
        return size
    new_long = int(wanted * long / short)
    return (new_short, new_long) if size[0] < size[1] else (new_long, new_short)


def pixel_values(image: Image.Image, scaling: ImageScaling) -> np.ndarray:
    """An RGB image, resized and normalised; float32 [3, H, W]."""
    resized = image.resize(scaled_size(image.size, scaling), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32) / 255
    return ((pixels - np.array(scaling.mean, np.float32)) / np.array(scaling.std, np.float32)).transpose(2, 0, 1)


def corners(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes [N, 4] from centre and sides, as shares, to x0, y0, x1, y1 in pixels of a picture of this width and height."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1).astype(np.float64) * [*size, *size]


def folder_of(model: Path) -> Path:
    """The folder with a model's tokenizer: the model's folder, its file's folder, or the folder above."""
    if model.is_dir():
        return model
    return model.parent if (model.parent / "tokenizer.json").is_file() else model.parent.parent


def read_scaling(folder: Path) -> ImageScaling:
    """The scaling of preprocessor_config.json; the default scaling if there is no such file.

    Raises:
      ConfigError: it cannot be read.
    """
    path = folder / "preprocessor_config.json"
    own, usual = read_json(path), ImageScaling()
    try:
        size = own.get("size", {})
        return ImageScaling(
            int(size.get("shortest_edge", usual.shortest)),
            int(size.get("longest_edge", usual.longest)),
            _channels(own.get("image_mean", usual.mean)),
            _channels(own.get("image_std", usual.std)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; {} if there is no such file.

    Raises:
      ConfigError: it cannot be read.
    """
    if not path.is_file():
        return {}
    return json_object(path, ConfigError)


def _channels(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"no tokenizer.json in {folder}: take the whole folder of the checkpoint")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"{path} cannot be read: {error}") from error
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64).clip(-700, 700)))
