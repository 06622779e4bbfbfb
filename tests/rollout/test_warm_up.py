"""After warm-up nothing is compiled, whatever the requests."""

import asyncio
import dataclasses

import jax
import numpy as np

from benchmarks.stand_ins.scripted import FakeTools
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.settings.rollout import EngineConfig, EpisodeConfig
from tests.compilations import Compilations
from tests.rollout import random_policy

SIZES = EngineConfig(
    num_slots=6,
    decode_width=4,
    max_length=256,
    extend_rows=(2,),
    extend_buckets=(16, 64),
    decode_rows=(2,),
    length_buckets=(128,),
    decode_steps=4,
    extend_calls=2,
)
RULES = EpisodeConfig(
    prompt_style="short",
    max_tool_calls=3,
    max_turn_tokens=24,
    max_trajectory_tokens=256,
    observation_max_tokens=40,
    on_invalid="correct",
)


def requests(rng: np.random.Generator, count: int) -> list[EpisodeRequest]:
    """Episodes of random lengths, images and sampling settings, some of them groups."""
    made = []
    for number in range(count):
        question = "Where is it? " * int(rng.integers(1, 5))
        sampling = SamplingParams(float(rng.uniform(0.5, 2.0)), float(rng.uniform(0.5, 1.0)), int(rng.integers(0, 30)))
        image = random_policy.picture(int(rng.integers(0, 5)))
        for member in range(int(rng.integers(1, 3))):
            made.append(
                EpisodeRequest(f"{number}", f"{number}", question, image, int(rng.integers(2**31)) + member, sampling)
            )
    return made


def engine_of(sizes: EngineConfig) -> Engine:
    processor = ImageProcessor(min_pixels=28 * 28, max_pixels=56 * 84)
    return Engine.of(random_policy.model(), random_policy.TOKENIZER, processor, sizes)


def test_nothing_is_compiled_after_warm_up():
    # The programs of an engine with other sizes must not be counted with the second engine's.
    engine_of(
        dataclasses.replace(SIZES, num_slots=4, extend_buckets=(16,), decode_rows=(), length_buckets=())
    ).warm_up()
    engine = engine_of(SIZES)
    compilations, seen = Compilations(), []
    programs = engine.warm_up(lambda: seen.append(1))
    assert programs == len(seen) and compilations.count >= programs
    before, trajectories = compilations.count, []
    for seed in range(3):
        asked = requests(np.random.default_rng(seed), 6)
        trajectories += asyncio.run(run_episodes(engine, asked, RULES, FakeTools(0.01)))  # type: ignore[arg-type]
    assert max(len(t.turns) for t in trajectories) > 1 and engine.stats.extend_calls > 10
    assert compilations.count == before and engine.num_programs() == programs
    # The empty rows of warm-up have no effect on later results.
    last, image = trajectories[-1], engine.prepare_image(asked[-1].image)
    sampled = np.flatnonzero(last.loss_mask)
    full = jax.nn.log_softmax(
        random_policy.full_logprobs(last.token_ids, [image]) / asked[-1].sampling.temperature, axis=-1
    )
    picked = np.asarray(full)[sampled - 1, np.asarray(last.token_ids)[sampled]]
    np.testing.assert_allclose(np.asarray(last.logprobs)[sampled], picked, atol=1e-4)
