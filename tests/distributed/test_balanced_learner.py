"""GRPO's update from uneven shares of two and four processes, also with rows that two processes share: equal to one process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests import cpu_devices
from tests.distributed.test_learners_on_meshes import free_port

# argv: mesh sizes, this process, the coordinator, and the number of sequences of each process.
_SCRIPT = """
import json, sys
sizes, process, coordinator, shares = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
from mmsearch_jax.distributed.processes import start
if len(shares) > 1:
    start(coordinator, len(shares), process)
import jax, numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.policy_update import PolicyUpdater
from mmsearch_jax.learners.train_state import make_optimizer, split_model
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import BatchShape, GRPOConfig, GRPOLossConfig, OptimizerConfig
from mmsearch_jax.settings.policy import MeshConfig
from tests.learners.small_sequences import sequence
from tests.models.test_qwen2_5_vl import CONFIG, image

mesh = LearnerMesh.of(MeshConfig(*map(int, sizes.split(","))), whole_rows=False)
graph, reference, frozen = split_model(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), ("vision",))
# Plain SGD: the change of the parameters is the gradient.
optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, weight_decay=0.0), 100)
loss = GRPOLossConfig(kl_coef=0.05, aggregation="sequence", importance_cap=2.0, kl_estimator="k2")
shape = BatchShape(4, 64, 8, 24)
config = GRPOConfig(batch=shape, loss=loss, epochs=1, updates_per_batch=2, halvings=2)
updater = PolicyUpdater(graph, mesh.place(reference), optimizer, config, CONFIG, mesh)
state = mesh.train_state(reference, frozen, optimizer)


def made(number):
    rng = np.random.default_rng(number)
    one = sequence(number, int(rng.integers(8, 60)), image(number, 4, 6) if number % 3 else None)
    extras = {"advantages": np.full(len(one), rng.normal(), np.float32),
              "rollout_logprobs": rng.normal(-4.0, 0.3, len(one)).astype(np.float32)}
    return one.__class__(one.token_ids, one.positions, one.loss_weights, one.images, one.image_token_id, extras)


begin = sum(shares[:process])
told = []
for step in range(3):
    numbers = range(100 * step + begin, 100 * step + begin + shares[process])
    updated = updater.learn(state, [made(number) for number in numbers])
    state = updated.state
    told.append({name: updated.metrics[name] for name in ("loss", "kl", "entropy", "grad_norm", "fill", "batches")})
# The parameters after three steps, as a few random projections.
leaves = [np.asarray(multihost_utils.process_allgather(leaf, tiled=True)) for leaf in jax.tree.leaves(state.params)]
rng = np.random.default_rng(0)
told.append([float((leaf * rng.normal(size=leaf.shape)).sum()) for leaf in leaves])
if process == 0:
    print("LEARNT", json.dumps([told, updated.flops]))
"""


def learnt(sizes, shares):
    coordinator = f"127.0.0.1:{free_port()}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, sizes, str(process), coordinator, json.dumps(shares)],
            env=cpu_devices.environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(len(shares))
    ]
    ended = [process.communicate(timeout=600) for process in running]
    for process, (_, errors) in zip(running, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    (line,) = [line for line in ended[0][0].splitlines() if line.startswith("LEARNT ")]
    return json.loads(line.removeprefix("LEARNT "))


@pytest.mark.slow
def test_uneven_shares_of_several_processes_learn_what_one_learns():
    (*steps, parameters), flops = learnt("1,1,1,1", [18])
    assert min(step["grad_norm"] for step in steps) > 1e-2
    for sizes, shares in (("1,2,1,1", [15, 3]), ("2,2,1,1", [7, 0, 1, 10]), ("1,1,1,2", [4, 14])):
        (*found, changed), found_flops = learnt(sizes, shares)
        for one, other in zip(found, steps, strict=True):
            assert one == pytest.approx(other, rel=1e-5, abs=1e-5), (sizes, shares)
        np.testing.assert_allclose(changed, parameters, rtol=1e-5, atol=1e-5)
        assert found_flops == flops
