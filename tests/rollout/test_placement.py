"""Samplers on the chips of one host: tensor parallelism, weights from a learner's mesh, several real processes."""

import json
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError, ConfigError
from mmsearch_jax.rollout.placement import host_mesh, place_weights
from mmsearch_jax.settings.rollout import EngineConfig
from tests import cpu_devices
from tests.rollout import random_policy
from tests.rollout.test_engine import play, sequence

SIZES = EngineConfig(
    num_slots=4,
    max_length=128,
    extend_rows=(4,),
    extend_buckets=(64,),
    decode_rows=(),
    length_buckets=(),
    decode_steps=8,
)

_HOSTS = """
import dataclasses, json, sys
import jax
port, count, index = map(int, sys.argv[1:])
jax.distributed.initialize(f"localhost:{port}", count, index)
import jax.numpy as jnp, numpy as np
from flax import nnx
from mmsearch_jax.distributed.mesh import make_mesh
from mmsearch_jax.settings.policy import MeshConfig
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.axes import shard_state
from mmsearch_jax.rollout.engine_group import EngineGroup
from tests.rollout import random_policy
from tests.rollout.test_engine import play, sequence
from tests.rollout.test_placement import SIZES

assert jax.process_count() == count
# The learner's weights: over all processes, then changed there.
mesh = make_mesh(MeshConfig(1, -1, 1, 1))
state = shard_state(nnx.state(random_policy.model()), mesh)
state = jax.jit(lambda s: jax.tree.map(lambda x: x * 1.25, s))(state)
spread = [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]
assert spread and not any(leaf.is_fully_addressable for leaf in spread)

engine = random_policy.engine(dataclasses.replace(SIZES, tensor=2))
engine.set_weights(state, 7)
kernel = engine._weights["language"]["layers"][1]["q_proj"]["kernel"].get_value()
assert kernel.addressable_shards[0].data.size * 2 == kernel.size, kernel.sharding
keys = engine._cache.keys[0]
assert keys.addressable_shards[0].data.shape[2] * 2 == keys.shape[2], keys.sharding
assert all(leaf.is_fully_addressable for leaf in jax.tree.leaves(engine._weights))
# The same weights in each of the host's engines of one chip.
group = EngineGroup(random_policy.model(), random_policy.TOKENIZER, ImageProcessor(), dataclasses.replace(SIZES, groups=0))
group.set_weights(state, 7)
assert len(group.engines) == jax.local_device_count() and group.policy_version == 7
for chip, own in zip(jax.local_devices(), group.engines, strict=True):
    for a, b in zip(jax.tree.leaves(own._weights), jax.tree.leaves(engine._weights), strict=True):
        assert a.devices() == {chip}
        np.testing.assert_array_equal(a, jax.device_get(b))
# Each host samples its own prompts, in its own time: as many turns as its number.
for turn in range(index + 1):
    made = play(engine, [sequence(engine, seed=100 * index + s) for s in range(2)], max_tokens=16)
print(json.dumps([[m.token_ids, m.logprobs] for m in made]), flush=True)
"""


def run(script, devices, *arguments):
    env = {**cpu_devices.environment(devices), "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(process):
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    return out


def test_hosts_of_two_chips_sample_what_one_chip_does_with_weights_from_the_learner_s_mesh():
    hosts = 2
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = [run(_HOSTS, 2, port, hosts, index) for index in range(hosts)]
    outputs = [finished(process) for process in started]

    engine = random_policy.engine(SIZES)
    engine.set_weights(jax.tree.map(lambda x: x * 1.25, nnx.state(random_policy.model())), 7)
    for index, output in enumerate(outputs):
        made = play(engine, [sequence(engine, seed=100 * index + s) for s in range(2)], max_tokens=16)
        for own, (token_ids, logprobs) in zip(made, json.loads(output.splitlines()[-1]), strict=True):
            assert list(own.token_ids) == token_ids
            # Two chips add up in another order, and these weights are large.
            np.testing.assert_allclose(own.logprobs, logprobs, atol=5e-4)


def test_a_part_of_the_weights_may_be_replaced_and_is_copied():
    engine = random_policy.engine(SIZES)
    state = nnx.state(random_policy.model())
    before = jax.tree.map(np.asarray, dict(nnx.to_flat_state(engine._weights)))
    norm = ("language", "norm", "scale")
    part = nnx.from_flat_state({norm: dict(nnx.to_flat_state(state))[norm]})
    part = jax.tree.map(lambda x: (x * 2).astype(jnp.bfloat16), part)
    engine.set_weights(part, 3)
    jax.tree.leaves(part)[0].delete()
    after = dict(nnx.to_flat_state(engine._weights))
    assert engine.policy_version == 3 and after.keys() == before.keys()
    for path, leaf in after.items():
        assert leaf.get_value().dtype == jnp.float32
        np.testing.assert_array_equal(leaf.get_value(), before[path].get_value() * (2 if path == norm else 1))


def test_weights_of_another_model_and_too_many_chips_are_refused():
    held = nnx.state(random_policy.model())
    wider = jax.tree.map(lambda x: jnp.concatenate([x, x]), held)
    with pytest.raises(CheckpointError, match="the engine's model has no parameter .* of shape"):
        place_weights(wider, held, host_mesh())
    with pytest.raises(ConfigError, match="engine.tensor is 99, but this host has"):
        host_mesh(99)
