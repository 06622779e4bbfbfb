"""Makes the tiny base from scratch: tokenizer, random weights, pretraining on the training world, Hugging Face folder.

First the vision tower learns alone to see (`tower`). Then the language model learns to say what the tower sees, to copy and
to read, with the tower as it is. The base never sees a tool call.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import tqdm
from flax import nnx

from mmsearch_jax.core import protocol
from mmsearch_jax.core.errors import TrainingDiverged
from mmsearch_jax.core.settings import plain
from mmsearch_jax.data.batches import pack_stream
from mmsearch_jax.data.chat import IM_END, IMAGE_PAD, VISION_END, VISION_START, ChatRenderer
from mmsearch_jax.data.pipeline import Step
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.learners import supervised
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.miniworld import language, lessons, sight, tower
from mmsearch_jax.miniworld.dense_labels import Pixels
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.initial import fan_in
from mmsearch_jax.miniworld.tokenizer import save_tokenizer, train_tokenizer
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.hf import save_pretrained
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import BatchShape, RunConfig
from mmsearch_jax.settings.world import PartConfig, PretrainSettings

NORM_RATIO = (1.0, 3.0)
"""Sound lengths of image features, in lengths of text embeddings. Beyond them one of the two drowns the other."""


def make_base(
    settings: PretrainSettings, out: Path, workdir: Path, identity: Mapping[str, Any], *, show_progress: bool = True
) -> None:
    """Pretrains a base and writes it to `out` in bf16.

    Args:
      identity: the settings that must not change when the run is resumed.

    Raises:
      TrainingDiverged: the image features are much longer or shorter than the text embeddings.
    """
    seed = settings.seed
    processor = ImageProcessor(min_pixels=56 * 56, max_pixels=settings.max_pixels)
    text, vision = TextConfig(**dataclasses.asdict(settings.text)), VisionConfig(**dataclasses.asdict(settings.vision))
    tokenizer, model = _start(text, vision, seed)
    save_tokenizer(tokenizer, out)
    (out / "preprocessor_config.json").write_text(json.dumps(processor.to_hf(), indent=2) + "\n", encoding="utf-8")
    world = GeneratedWorld(settings.world_size, seed)
    numbers = tqdm.trange(settings.num_scenes, desc="scenes", disable=not show_progress)
    pool = lessons.scene_pool(world, processor, numbers, seed)
    run = RunConfig(settings.checkpoint_every)
    place = RunPlace(
        workdir, "pretrain_tower", run, identity, show_progress=show_progress, hyperparameters=plain(settings)
    )
    model.vision = tower.train_tower(
        model.vision, vision, [pooled.pixels for pooled in pool], settings.tower, place, seed
    )
    builder = lessons.LessonBuilder(ChatRenderer(tokenizer), model.config)
    for number, (_, course) in enumerate(sorted(settings.courses.items()), 1):
        parts = [part for _, part in sorted(course.parts.items())]
        model = supervised.train(
            model,
            _batches(builder, pool, course.batch, parts, seed + number),
            supervised.Updates(sum(part.steps for part in parts), course.optimizer, freeze=("vision",)),
            dataclasses.replace(place, phase=f"pretrain_{number}"),
        )
    check_norms(model, [pooled.pixels for pooled in pool[:64]])
    graph, state = nnx.split(model)
    small = nnx.merge(graph, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state))
    save_pretrained(cast(Qwen2_5_VL, small), out)


def check_norms(model: Qwen2_5_VL, scenes: Sequence[Pixels]) -> None:
    """Checks that the features of these scenes are about as long as the text embeddings (`NORM_RATIO`).

    Raises:
      TrainingDiverged: they are not; the message names both lengths.
    """
    features = tower.features_of(model.vision, *tower.inputs(scenes, model.config.vision))
    seen, read = (float(np.linalg.norm(each, axis=-1).mean()) for each in (features, model.language.embedding[...]))
    low, high = NORM_RATIO
    if not low * read <= seen <= high * read:
        raise TrainingDiverged(
            f"image features have a mean norm of {seen:.3g}, text embeddings of {read:.3g}: the ratio {seen / read:.3g} is not "
            f"within {low:g} to {high:g}, so that the base could not learn to look; change the courses' steps or learning rates"
        )


def _start(text: TextConfig, vision: VisionConfig, seed: int) -> tuple[tokenizers.Tokenizer, Qwen2_5_VL]:
    tokenizer = train_tokenizer(tokenizer_texts(seed), text.vocab_size)
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
    return tokenizer, fan_in(Qwen2_5_VL(config, rngs=nnx.Rngs(seed)), seed)


def _batches(
    builder: lessons.LessonBuilder,
    pool: list[lessons.PooledScene],
    shape: BatchShape,
    parts: Sequence[PartConfig],
    seed: int,
) -> Callable[[int, Any], Iterator[Step]]:
    def batches(start: int, _: Any) -> Iterator[Step]:
        first = 0
        for part in parts:
            first, begin = first + part.steps, max(start, first)
            # Each stretch has its own seed, so that a resumed run does not repeat lessons.
            stream = lessons.pretraining_lessons(builder, pool, part.mixture, shape.length, [seed, begin])
            yield from map(Step, itertools.islice(pack_stream(stream, shape), max(0, first - begin)))

    return batches


def tokenizer_texts(seed: int, count: int = 6000) -> Iterator[str]:
    """What the tokenizer is trained on: the lessons' text, and the words that need a token of their own."""
    rng = np.random.default_rng(seed)
    tags = [
        f"<{slash}{tag}>"
        for tag in (protocol.REASON, *protocol.ACTION_TAGS, protocol.INFORMATION)
        for slash in ("", "/")
    ]
    for number in range(count):
        if number % 3 == 0:
            yield " ".join([*tags, protocol.WHOLE_IMAGE])
            # A word has a token of its own both behind a space and at the start of an answer.
            yield "".join(f" {word}" for word in sight.WORDS)
            yield "\n".join(sight.WORDS)
        for question, answer in language.TEXT_TASKS[("reading", "joining", "copying")[number % 3]](rng).turns:
            yield f"user\n{question}"
            yield f"assistant\n{answer}"
