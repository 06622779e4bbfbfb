"""Sizes of the published Qwen2.5-VL models, for plans without a checkpoint.

From the `config.json` of Qwen/Qwen2.5-VL-{3B,7B,32B,72B}-Instruct.
"""

from __future__ import annotations

import re
from pathlib import Path

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig

SIZES = {
    "3b": ModelConfig(
        TextConfig(151936, 2048, 11008, 36, 16, 2, tie_word_embeddings=True), VisionConfig(out_hidden_size=2048)
    ),
    "7b": ModelConfig(),
    "32b": ModelConfig(
        TextConfig(152064, 5120, 27648, 64, 40, 8), VisionConfig(intermediate_size=3456, out_hidden_size=5120)
    ),
    "72b": ModelConfig(
        TextConfig(152064, 8192, 29568, 80, 64, 8), VisionConfig(intermediate_size=3456, out_hidden_size=8192)
    ),
}


def model_of(checkpoint: str, size: str = "", hint: str = "") -> ModelConfig:
    """The sizes of the model that a config trains.

    Args:
      checkpoint: the config's checkpoint; its sizes are read if the folder exists.
      size: such as "7b"; takes precedence over the others.
      hint: another text that may name the size (the config file's name).

    Raises:
      ConfigError: no checkpoint folder, and no known size is named.
    """
    if size:
        if size.lower() not in SIZES:
            raise ConfigError(f"no model size '{size}': known are {', '.join(SIZES)}")
        return SIZES[size.lower()]
    if (Path(checkpoint) / "config.json").is_file():
        return ModelConfig.from_pretrained(checkpoint)
    for text in (checkpoint, hint):
        named = re.findall(r"(?<!\d)(3b|7b|32b|72b)(?![a-z\d])", text.lower())
        if named:
            return SIZES[named[-1]]
    raise ConfigError(
        f"there is no checkpoint at {checkpoint} to read the sizes from: name the model with --size ({', '.join(SIZES)})"
    )
