"""Converts the mini-world's dialogues to training sequences: token ids, loss weights and the image.

Pretraining mixes three parts: echoes of random tokens (which teach copying), dialogues of `language.py`, and dialogues
of `sight.py` about a pool of composed scenes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mmsearch_jax.data.batches import TrainingSequence
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.images import pixels
from mmsearch_jax.images.processing import ImageProcessor, ProcessedImage
from mmsearch_jax.miniworld import language, sight
from mmsearch_jax.miniworld.dense_labels import Pixels
from mmsearch_jax.miniworld.language import Dialogue
from mmsearch_jax.miniworld.worlds import World, compose_scene
from mmsearch_jax.settings.world import MixtureConfig

PROMPT_WEIGHT = 0.05
"""Loss weight of the user's tokens: enough to learn the language, too little to dominate the answers."""


@dataclasses.dataclass(frozen=True)
class PooledScene:
    """A composed scene: its pixels at the tower's size, its patches, and the facts that new questions ask for at each use."""

    pixels: Pixels
    processed: ProcessedImage
    sight: sight.Sight


def scene_pool(world: World, processor: ImageProcessor, numbers: Iterable[int], seed: int) -> list[PooledScene]:
    """Composes and processes the scenes with the given numbers (about 20 ms each); two of three have cluttered backgrounds."""
    pool = []
    for number in numbers:
        scene = compose_scene(world, np.random.default_rng([seed, number]), clutter=2 / 3)
        processed = processor(scene.image)
        _, rows, columns = processed.grid
        height, width = rows * processor.patch_size, columns * processor.patch_size
        boxes = np.array(scene.boxes, np.float32) * np.tile(np.divide((width, height), scene.image.size), 2)
        image = pixels.resize(np.asarray(scene.image), height, width)
        small = Pixels(image, tuple(scene.kinds), boxes.astype(np.float32))
        pool.append(PooledScene(small, processed, sight.Sight.of(scene)))
    return pool


def pretraining_lessons(
    builder: LessonBuilder, pool: Sequence[PooledScene], mixture: MixtureConfig, max_tokens: int, seed: Sequence[int]
) -> Iterator[TrainingSequence]:
    """An endless stream of pretraining sequences of at most `max_tokens`; equal seeds give equal streams."""
    rng = np.random.default_rng(seed)
    parts = [field.name for field in dataclasses.fields(mixture)]
    weights = np.array([getattr(mixture, part) for part in parts])
    while True:
        part = parts[int(rng.choice(len(parts), p=weights / weights.sum()))]
        if part == "echo":
            yield builder.echo(rng)
            continue
        image = None
        if part in sight.SIGHT_TASKS:
            pooled = pool[int(rng.integers(len(pool)))]
            dialogue, image = sight.SIGHT_TASKS[part](rng, pooled.sight), pooled.processed
            if dialogue is None:
                continue
        else:
            dialogue = language.TEXT_TASKS[part](rng)
        sequence = builder.dialogue(dialogue, image)
        while len(sequence) > max_tokens and len(dialogue.turns) > 1:
            dialogue = dataclasses.replace(dialogue, turns=dialogue.turns[:-1])
            sequence = builder.dialogue(dialogue, image)
        if len(sequence) <= max_tokens:
            yield sequence


class LessonBuilder(SequenceBuilder):
    """A sequence builder that also renders the mini-world's dialogues."""

    def dialogue(self, dialogue: Dialogue, image: ProcessedImage | None = None) -> TrainingSequence:
        """The dialogue without the tool protocol: <|im_end|> closes every answer; user tokens weigh `PROMPT_WEIGHT`."""
        (first, *_), texts = dialogue.turns, []
        for i, (_, answer) in enumerate(dialogue.turns):
            texts.append((answer, dialogue.turns[i + 1][0] if i + 1 < len(dialogue.turns) else None))
        images = [image] if image is not None else []
        rendered = self._renderer.conversation(first[0], texts, self._counts(images), plain=True)
        loss_weights = np.where(rendered.loss_mask, 1.0, PROMPT_WEIGHT)
        return self._sequence(rendered.token_ids, loss_weights, images)

    def echo(self, rng: np.random.Generator) -> TrainingSequence:
        """Random tokens, repeated once. Only the repetition has loss, because only it can be predicted."""
        text_ids = [i for i, text in enumerate(self._renderer.token_bytes) if text]
        ids = [text_ids[int(i)] for i in rng.integers(0, len(text_ids), int(rng.integers(4, 24)))]
        start, end = self._renderer.im_start, self._renderer.im_end
        tokens = [start, *ids, end, start, *ids, end]
        loss_weights = np.zeros(len(tokens))
        loss_weights[len(ids) + 3 :] = 1.0
        return self._sequence(tokens, loss_weights, [])
