"""What the engines of one process have in common: sizes, functions, vocabulary and images. No array on a device."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.rollout import jitted
from mmsearch_jax.rollout.images import ImageCache
from mmsearch_jax.rollout.turns import TurnEnds
from mmsearch_jax.settings.rollout import EngineConfig


@dataclasses.dataclass(frozen=True)
class EngineSpec:
    """Everything of an engine except its chips, weights and caches.

    Attributes:
      seed: of the sampling keys, together with each trajectory's own seed.
      dtype: of the caches.
      shapes: abstract state of the model with single layers.
      images: decoded images and their features, which all engines share (their weights are equal).
    """

    config: EngineConfig
    model_config: ModelConfig
    seed: int
    dtype: Any
    shapes: Any
    functions: jitted.Functions
    renderer: ChatRenderer
    turns: TurnEnds
    images: ImageCache

    @classmethod
    def of(
        cls, model: Any, tokenizer: Any, image_processor: ImageProcessor, config: EngineConfig, seed: int = 0
    ) -> Self:
        """The common parts of engines for a model.

        Args:
          model: a `Qwen2_5_VL`.
          tokenizer: of the same checkpoint: a transformers fast tokenizer or a `tokenizers.Tokenizer`.
          image_processor: of the same checkpoint.
          config: sizes; `max_length` must be set.

        Raises:
          CheckpointError: model and tokenizer belong to different checkpoints.
        """
        renderer, sizes = ChatRenderer(tokenizer), model.config
        if sizes.image_token_id != renderer.image_pad:
            raise CheckpointError(
                f"the model's image token is {sizes.image_token_id}, the tokenizer's is {renderer.image_pad}: take both from "
                "one checkpoint"
            )
        graph, shapes = jitted.single_layers(model)
        return cls(
            config,
            sizes,
            seed,
            model.dtype,
            shapes,
            jitted.model_functions(graph, config),
            renderer,
            TurnEnds(renderer, sizes.text.vocab_size),
            ImageCache(image_processor, sizes.vision, config),
        )
