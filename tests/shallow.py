"""A policy of one layer, for tests of what happens around the model: its programs compile in half the time."""

import dataclasses

from mmsearch_jax.models.config import ModelConfig


def shallow(config: ModelConfig) -> ModelConfig:
    """The config with one decoder layer and one block of the vision tower."""
    return dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, num_hidden_layers=1),
        vision=dataclasses.replace(config.vision, depth=1, fullatt_block_indexes=(0,)),
    )
