"""Makes the tiny base from nothing: tokenizer, random weights, pretraining on the training world, Hugging Face folder.

The base knows the training world's language and pictures and how to copy; it has never seen a tool call.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import tqdm
from flax import nnx

from mmsearch_jax.core import protocol
from mmsearch_jax.data.batches import BatchShape, pack_stream
from mmsearch_jax.data.chat import IM_END, IMAGE_PAD, VISION_END, VISION_START, ChatRenderer
from mmsearch_jax.data.pipeline import Step
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.learners import supervised
from mmsearch_jax.learners.train_state import OptimizerConfig
from mmsearch_jax.learners.training_run import RunConfig
from mmsearch_jax.miniworld import language, lessons
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.tokenizer import save_tokenizer, train_tokenizer
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.hf import save_pretrained
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of pretraining: that many steps of one mixture of lessons."""

    steps: int
    mixture: lessons.Mixture


@dataclasses.dataclass(frozen=True)
class Course:
    """Parts, one after the other, under one learning-rate schedule."""

    parts: Sequence[Part]
    optimizer: OptimizerConfig

    @property
    def steps(self) -> int:
        """Of all parts together."""
        return sum(part.steps for part in self.parts)


def make_base(
    out: Path,
    workdir: Path,
    *,
    text: TextConfig,
    vision: VisionConfig,
    max_pixels: int,
    shape: BatchShape,
    courses: Sequence[Course],
    num_scenes: int,
    world_size: int,
    seed: int,
    checkpoint_every: int = 0,
    show_progress: bool = True,
) -> None:
    """Pretrains a base and writes it to `out` in bf16.

    Args:
      courses: in order. The first part is best made of nothing but echoes, which make copying appear early.
      num_scenes: composed pictures to learn to look at.
      world_size: lands of the world that the pictures show.
    """
    processor = ImageProcessor(min_pixels=56 * 56, max_pixels=max_pixels)
    tokenizer, model = _start(text, vision, seed)
    save_tokenizer(tokenizer, out)
    (out / "preprocessor_config.json").write_text(json.dumps(processor.to_hf(), indent=2) + "\n", encoding="utf-8")
    world = GeneratedWorld(world_size, seed)
    numbers = tqdm.trange(num_scenes, desc="scenes", disable=not show_progress)
    pool = lessons.scene_pool(world, processor, numbers, seed)
    builder = lessons.LessonBuilder(ChatRenderer(tokenizer), model.config)
    for number, course in enumerate(courses, 1):
        batches = _batches(builder, pool, shape, course.parts, seed + number)
        model = supervised.train(
            model,
            batches,
            course.steps,
            course.optimizer,
            workdir,
            f"pretrain_{number}",
            config=RunConfig(checkpoint_every),
            show_progress=show_progress,
        )
    graph, state = nnx.split(model)
    small = nnx.merge(graph, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state))
    save_pretrained(cast(Qwen2_5_VL, small), out)


def _start(text: TextConfig, vision: VisionConfig, seed: int) -> tuple[tokenizers.Tokenizer, Qwen2_5_VL]:
    tokenizer = train_tokenizer(_tokenizer_texts(seed), text.vocab_size)
    ids = tokenizer.get_vocab()
    config = ModelConfig(
        text=dataclasses.replace(text, vocab_size=tokenizer.get_vocab_size()),
        vision=vision,
        image_token_id=ids[IMAGE_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        video_token_id=ids["<|video_pad|>"],
        eos_token_id=ids[IM_END],
    )
    return tokenizer, Qwen2_5_VL(config, rngs=nnx.Rngs(seed))


def _batches(
    builder: lessons.LessonBuilder, pool: list[lessons.PooledScene], shape: BatchShape, parts: Sequence[Part], seed: int
) -> Callable[[int, Any], Iterator[Step]]:
    def batches(start: int, _: Any) -> Iterator[Step]:
        first = 0
        for part in parts:
            first, begin = first + part.steps, max(start, first)
            # Each stretch has its own seed, so a resumed run goes on with fresh, not repeated, lessons.
            stream = lessons.pretraining_lessons(builder, pool, part.mixture, shape.length, [seed, begin])
            yield from map(Step, itertools.islice(pack_stream(stream, shape), max(0, first - begin)))

    return batches


def _tokenizer_texts(seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    tags = [
        f"<{slash}{tag}>"
        for tag in (protocol.REASON, *protocol.ACTION_TAGS, protocol.INFORMATION)
        for slash in ("", "/")
    ]
    for number in range(6000):
        if number % 3 == 0:
            yield " ".join([*tags, protocol.WHOLE_IMAGE, "the flag on the left right top bottom in the middle"])
        for question, answer in language.TEXT_TASKS[("reading", "joining", "copying")[number % 3]](rng).turns:
            yield f"user\n{question}"
            yield f"assistant\n{answer}"
