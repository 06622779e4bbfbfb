"""All devices of a host sample in one process: the same tokens as on one device, weights placed once, no engine waits."""

import asyncio
import dataclasses
import time

import pytest

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.rollout.placement import host_meshes
from mmsearch_jax.rollout.rounds import Rounds
from mmsearch_jax.rollout.sequence import EngineStats, LiveSequence
from mmsearch_jax.settings.rollout import EngineConfig
from tests.rollout.test_placement import finished, run

# What both scripts begin with; each runs on a simulated host of some devices.
_GROUP = """
import asyncio, dataclasses, json, sys, tempfile
from pathlib import Path
import jax, numpy as np
from flax import nnx
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.data.rows import Row
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.rollout.engine_group import EngineGroup
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.policy import MeshConfig
from tests.learners.test_grpo import EPISODE, RECIPE, SIZES, EverySecond, Server
from tests.rollout import random_policy
from tests.compilations import Compilations

COUNT = len(jax.devices())
processor = ImageProcessor(min_pixels=28 * 28, max_pixels=56 * 84)
client = lambda: ToolClient("http://test", max_retries=0, transports=[Server(float("inf"))])
# One layer: each engine compiles its own programs.
model = random_policy.model(random_policy.SHALLOW)
mesh = LearnerMesh.of(MeshConfig(data=2, fsdp=COUNT // 2))


def group_of(groups):
    sizes = dataclasses.replace(SIZES, num_slots=4, groups=groups)
    return EngineGroup(model, random_policy.TOKENIZER, processor, sizes, 3)


every = group_of(0)
assert len(every.engines) == COUNT and every.config.num_slots == 4 * COUNT
"""

_SAMPLES = """
def episodes(engine):
    asked = [
        EpisodeRequest(str(p), str(p), f"Where is it{'?' * p}", random_policy.picture(p % 2), 10 * p + m)
        for p in range(9) for m in range(2)
    ]
    async def play():
        tools = client()
        try:
            return await run_episodes(engine, asked, EPISODE, tools)
        finally:
            await tools.close()
    return asyncio.run(play())


one = group_of(1)
assert len(one.engines) == 1
devices = [leaf.devices() for engine in every.engines for leaf in jax.tree.leaves((engine._weights, engine._cache))]
assert set.union(*devices) == set(jax.devices()) and all(len(own) == 1 for own in devices)
# Weights from the learner's mesh over all devices: one program, compiled once.
state = jax.jit(lambda s: jax.tree.map(lambda x: x * 1.25, s))(mesh.place(nnx.state(model)))
for group in (one, every):
    group.set_weights(state, 1)
compiled = Compilations()
every.set_weights(state, 2)
one.set_weights(state, 2)
assert compiled.count == 0 and every.policy_version == 2
a, b = episodes(one), episodes(every)
for x, y in zip(a, b, strict=True):
    assert x.token_ids == y.token_ids and x.status == y.status and x.num_sampled > 0
    np.testing.assert_allclose(x.logprobs, y.logprobs, atol=1e-4)
sampled = [engine.stats.sampled_tokens for engine in every.engines]
assert min(sampled) > 0 and sum(sampled) == every.stats.sampled_tokens == one.stats.sampled_tokens, sampled
# Members of a group share their prompt, unless the first has ended before the second begins.
prompts = {x.group_id: int(np.flatnonzero(x.loss_mask)[0]) for x in b}
assert 0 < one.stats.shared_tokens <= sum(prompts.values()) and 0 < every.stats.shared_tokens <= sum(prompts.values())
assert every.free_slots == 4 * COUNT
print("same", sum(len(t.token_ids) for t in a), flush=True)
"""

_LEARNS = """
rows = []
folder = Path(tempfile.mkdtemp())
for shade in range(COUNT):
    path = folder / f"{shade}.png"
    path.write_bytes(random_policy.picture(shade))
    rows.append(Row(str(shade), str(path), f"Where is it{'?' * shade}", ("Lima",), "crop", True))
recipe = dataclasses.replace(RECIPE, num_steps=1, prompts_per_step=COUNT, group_size=2, batch=BatchShape(COUNT, 256, COUNT, 24))
environment = grpo.Environment(every, client(), EPISODE, EverySecond(recipe.reward))
trained = grpo.train(model, rows, recipe, environment, RunPlace(folder, "grpo", show_progress=False), mesh=mesh)
assert all(leaf.sharding.device_set == set(jax.devices()) for leaf in jax.tree.leaves(nnx.state(trained)))
(record,) = map(json.loads, (folder / "metrics.jsonl").open())
assert record["sampling_engines"] == COUNT and record["updates"] == 1 and record["grad_norm"] > 0, record
# The learner on its mesh computes the log-probs that the engines sampled with.
assert record["rollout_learner_kl"] < 1e-6, record
print("learnt", record["loss"])
"""


def test_four_devices_sample_what_one_does():
    assert "same" in finished(run(_GROUP + _SAMPLES, 4))


@pytest.mark.slow
def test_eight_devices_sample_for_a_learner_that_spans_them():
    assert "learnt" in finished(run(_GROUP + _LEARNS, 8))


@pytest.mark.parametrize(
    ("config", "devices", "expected"),
    [
        (EngineConfig(), 8, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        (EngineConfig(tensor=4), 8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (EngineConfig(tensor=2, groups=1), 8, [[0, 1]]),
        (EngineConfig(tensor=3), 8, [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_a_host_s_devices_are_divided_into_groups(config, devices, expected):
    assert [[device.id for device in mesh.devices.flat] for mesh in host_meshes(config, chips(devices))] == expected


def test_more_engines_than_the_host_has_devices_for_are_refused():
    with pytest.raises(ConfigError, match="engine.groups is 3, which with engine.tensor=4 needs 12 devices, .* has 8"):
        host_meshes(EngineConfig(tensor=4, groups=3), chips(8))


def chips(count):
    """Stand-ins for the devices of a host."""
    return [
        dataclasses.make_dataclass("Chip", ["id", "process_index", "platform"], frozen=True)(i, 0, "cpu")
        for i in range(count)
    ]


class StubEngine:
    """An engine whose rounds end when they are told to."""

    def __init__(self):
        self.events, self.released, self.begun = [], [], 0

    def play(self, sequences):
        self.begun += 1
        while not self.events:
            time.sleep(0.001)
        event = self.events.pop()
        if isinstance(event, Exception):
            raise event
        return list(sequences)

    def release(self, sequence):
        self.released.append(sequence)


def test_an_engine_does_not_wait_for_another_one_and_is_not_changed_during_a_round():
    async def main():
        slow, fast = engines = StubEngine(), StubEngine()
        first, second = (LiveSequence([], [], engine=engine) for engine in engines)
        rounds = Rounds(engines)
        for number in range(3):
            rounds.start([first, second])
            assert rounds.all_busy
            fast.events.append("end")
            await asyncio.wait(rounds.futures, return_when=asyncio.FIRST_COMPLETED)
            assert [ended.finished for ended in rounds.ended()] == [[second]] and fast.begun == number + 1
        assert slow.begun == 1
        rounds.release(first)
        rounds.release(second)
        assert not slow.released and fast.released == [second]
        slow.events.append("end")
        await asyncio.wait(rounds.futures)
        assert [ended.sequences for ended in rounds.ended()] == [[first]] and slow.released == [first]
        # A failure reaches the caller, and closing waits for what still runs.
        rounds.start([first, second])
        slow.events.append(MemoryError("the chip is full"))
        await asyncio.wait(rounds.futures, return_when=asyncio.FIRST_COMPLETED)
        rounds.release(second)
        with pytest.raises(MemoryError, match="the chip is full"):
            rounds.ended()
        fast.events.append("end")
        await rounds.close()
        assert fast.released == [second, second] and not rounds.futures

    asyncio.run(main())


def test_the_work_of_engines_adds_up():
    assert EngineStats(1, 2, 3) + EngineStats(10, 20, 30, 40) == EngineStats(11, 22, 33, 40)
