"""Converts rows to training sequences: ids, positions, loss weights and images, for one tokenizer and model config."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmsearch_jax.core.protocol import first_turn_prompt, later_prompt, parse_turn
from mmsearch_jax.data.batches import TrainingSequence
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_layout import VisionLayout
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.mrope import mrope_positions


class SequenceBuilder:
    """Renders conversations with one tokenizer, for one model. It can be pickled.

    Args:
      train_end: whether every turn ends with a trained <|im_end|>, also the last one. Sampling here stops at closing tags and
        needs no such token; other programs may.
    """

    def __init__(self, renderer: ChatRenderer, config: ModelConfig, *, train_end: bool = False):
        self._renderer, self._config, self._train_end = renderer, config, train_end

    @property
    def layout(self) -> VisionLayout:
        """Of the model's vision tower."""
        return self._config.vision.layout

    def conversation(self, row: Row, prompt_style: str, images: Sequence[ProcessedImage]) -> TrainingSequence:
        """An SFT conversation in the grammar: tokens that the policy writes are trained, prompts and observations are not.

        Args:
          prompt_style: one of `protocol.PROMPT_STYLES`.
          images: of the row, in order.
        """
        turns = []
        for turn in row.turns:
            later = later_prompt(parse_turn(turn.text).action, prompt_style)
            turns.append((turn.text, None if turn.observation is None else turn.observation + later))
        prompt = first_turn_prompt(row.question, prompt_style)
        rendered = self._renderer.conversation(prompt, turns, self._counts(images), plain=self._train_end)
        return self._sequence(rendered.token_ids, np.asarray(rendered.loss_mask), images)

    def _counts(self, images: Sequence[ProcessedImage]) -> list[int]:
        return [len(image.patches) // self.layout.patches_per_token for image in images]

    def _sequence(
        self, ids: Sequence[int], loss_weights: np.ndarray, images: Sequence[ProcessedImage]
    ) -> TrainingSequence:
        positions, _ = mrope_positions(ids, [image.grid for image in images], self._config)
        return TrainingSequence(
            np.asarray(ids, np.int32),
            positions,
            loss_weights.astype(np.float32),
            images,
            self._config.image_token_id,
            layout=self._config.vision.layout,
        )
