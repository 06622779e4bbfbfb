"""How cost grows with size, and which costs grow faster than linearly: python -m benchmarks.growth [--quick] [--json FILE].

Each series increases one size by a factor of two or more and fits the slope of seconds over size on a log-log scale: 1 is
linear, below 1 a larger size is cheaper per unit, 2 is quadratic. The spread is that of the slopes between neighbours, which
shows a bend.

  sequence   tokens of one SFT row (update of all parameters, layers recomputed in the backward pass); beside a layer's other
             products its attention counts 2.5 times as much as in the 7B, so the bend comes at shorter rows
  images     of 768 patches each through the vision tower
  group      rollouts of one prompt of 512 tokens: prefill, copies of the cache, 16 tokens each
  slots      that decode at once, each with 128 tokens in its cache; seconds of a step
  episodes   with a scripted policy and mock tools, 64 at once

`benchmarks.corpora` measures the size of a search corpus and prints its slopes.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from benchmarks import harness
from benchmarks.rollout import MockTools, make_engine, plays, requests
from benchmarks.sft_step import make_sequence, ours
from benchmarks.stand_ins import scripted
from benchmarks.table import Measured, command_line, report
from mmsearch_jax.data.batches import pack
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_inputs import pack_images
from mmsearch_jax.models.config import ModelConfig, TextConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import run_episodes
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.rollout import EngineConfig

LINEAR = 1.1
"""A slope up to this value counts as linear; the rest is noise."""
WIDE = TextConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=8192,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    mrope_section=(8, 12, 12),
    tie_word_embeddings=True,
)


class Series(NamedTuple):
    """Sizes, those for --quick (none: left out), a factory of the function from a size to its seconds, and the reason if the
    slope is steep."""

    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    prepare: Callable[[], Callable[[int], float]]
    why: str = ""


def main() -> None:
    """Measures every series and prints the slopes."""
    options = command_line("How cost grows with size.", "images, groups and episodes, two sizes of each").parse_args()
    rows = {}
    for name, series in SERIES.items():
        sizes = series.quick if options.quick else series.sizes
        if not sizes:
            continue
        measure, seconds = series.prepare(), []
        for size in sizes:
            seconds.append(measure(size))
            print(f"{name} {size}: {seconds[-1]:.4g} s", flush=True)
        slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        steps = [
            np.log(b[1] / a[1]) / np.log(b[0] / a[0]) for a, b in itertools.pairwise(zip(sizes, seconds, strict=True))
        ]
        rows[f"slope: {name}, {sizes[0]:,} to {sizes[-1]:,}"] = Measured(
            slope, "", f"at most {LINEAR}", slope <= LINEAR, (float(min(steps)), float(max(steps))), series.why
        )
    report(rows, options.json)


def sequence_seconds() -> Callable[[int], float]:
    """Seconds of an SFT update on one row, by its number of tokens."""
    config = ModelConfig(text=WIDE, vision=harness.SMALL.vision)
    model = Qwen2_5_VL(config, rngs=nnx.Rngs(0))
    model.set_remat("full")

    def measure(length: int) -> float:
        sequence = make_sequence(np.random.default_rng(0), length, 0, config)
        batch = pack([sequence], BatchShape(1, length))[0].batch
        return statistics.median(ours(model, [[batch]] * (3 if length <= 4096 else 1))["seconds"])

    return measure


def image_seconds() -> Callable[[int], float]:
    """Seconds to encode images in one call, by their number."""
    model = harness.random_model("small")
    encode = nnx.jit(lambda model, vision: model.encode_images(vision))

    def measure(count: int) -> float:
        pixels = np.random.default_rng(0).integers(0, 256, (768, 588), dtype=np.uint8)
        vision, _ = pack_images([ProcessedImage(pixels, (1, 24, 32))] * count)
        return statistics.median(harness.seconds(lambda: encode(model, vision), 3))

    return measure


def group_seconds() -> Callable[[int], float]:
    """Seconds of the rollouts of one prompt, by their number."""
    sizes = EngineConfig(
        num_slots=32,
        max_length=544,
        extend_rows=(1,),
        extend_buckets=(512,),
        decode_rows=(2, 4, 8, 16),
        length_buckets=(),
        decode_steps=16,
    )
    engine = harness.engine(harness.random_model("small"), harness.vocabulary(), sizes)
    prompt = np.random.default_rng(0).integers(100, 100_000, 512).tolist()

    def run(size: int) -> None:
        live = begin(engine, prompt, size, 16)
        engine.decode(live)
        for sequence in live:
            engine.release(sequence)

    return lambda size: statistics.median(harness.seconds(lambda: run(size), 3))


def slot_seconds() -> Callable[[int], float]:
    """Seconds of a decode step, by its number of sequences."""
    model, tokenizer, steps = harness.random_model("small"), harness.vocabulary(), 4
    prompt = np.random.default_rng(0).integers(100, 100_000, 128).tolist()

    def measure(slots: int) -> float:
        sizes = EngineConfig(
            num_slots=slots,
            max_length=160,
            extend_rows=(8,),
            extend_buckets=(128,),
            decode_rows=(),
            length_buckets=(),
            decode_steps=steps,
        )
        engine = harness.engine(model, tokenizer, sizes)
        # No sequence may end during the measurement: each has room for more than is decoded.
        live = begin(engine, prompt, slots, 32)
        return (
            statistics.median(harness.seconds(lambda: engine.decode([s for s in live if s.finish is None]), 3)) / steps
        )

    return measure


def begin(engine: Any, prompt: list[int], count: int, new_tokens: int) -> list[LiveSequence]:
    """Sequences of one prompt in the engine, ready to decode."""
    live = [LiveSequence(list(prompt), [], seed, SamplingParams(1.0), plain=True) for seed in range(count)]
    for sequence in live:
        engine.acquire(sequence)
        engine.begin_turn(sequence, new_tokens)
    engine.extend(live)
    return live


def episode_seconds() -> Callable[[int], float]:
    """Seconds of whole episodes with up to two searches each."""
    scripts = plays(lambda number: number % 3)
    engine = make_engine(scripts, 64, 64)

    def measure(count: int) -> float:
        asked = requests(scripts, count)
        began = time.perf_counter()
        done = asyncio.run(run_episodes(engine, asked, scripted.CONFIG, MockTools(0.0)))  # type: ignore[arg-type]
        statuses = {trajectory.status for trajectory in done}
        assert len(done) == count and statuses == {"answered"}, f"not every episode ended with an answer: {statuses}"
        return time.perf_counter() - began

    # Compiles all programs, including those that only the last few episodes of a run need.
    measure(100)
    measure(200)
    return measure


SERIES = {
    "sequence": Series(
        (1024, 2048, 4096, 8192, 16_384, 32_768),
        (),
        sequence_seconds,
        "Attention is quadratic in the length of a row, so its share grows with the length; everything else is linear. "
        "For packed conversations the cost depends on their own length, not on the row's, where the kernel skips other "
        "segments.",
    ),
    "images": Series((1, 2, 4, 8, 16), (1, 2), image_seconds),
    "group": Series((2, 4, 8, 16, 32), (2, 4), group_seconds),
    "slots": Series((8, 16, 32, 64, 128, 256, 512), (), slot_seconds),
    "episodes": Series((100, 1000, 10_000, 100_000), (100, 200), episode_seconds),
}


if __name__ == "__main__":
    main()
