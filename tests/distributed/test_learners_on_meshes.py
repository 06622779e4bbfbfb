"""SFT and GRPO updates on several devices and in several processes have the losses of one device, step by step."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import cpu_devices

# Each process runs this: argv is the work folder, the mesh, its number, the number of processes, the coordinator, the steps of
# the run, and the step it stops at.
_SCRIPT = """
import json, sys
from pathlib import Path
workdir, sizes, process, processes, coordinator, steps, until = sys.argv[1:]
process, processes = int(process), int(processes)
if processes > 1:
    from mmsearch_jax.distributed.processes import start
    start(coordinator, processes, process)
import jax, numpy as np
from flax import nnx
from mmsearch_jax.data.batches import join_batches, pack
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.data.pipeline import Step
from mmsearch_jax.settings.policy import MeshConfig
from mmsearch_jax.learners import supervised
from mmsearch_jax.settings.learning import GRPOConfig, GRPOLossConfig
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.settings.learning import RunConfig
from mmsearch_jax.learners.policy_update import PolicyUpdater
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.learners.train_state import make_optimizer, split_model
from mmsearch_jax.settings.learning import OptimizerConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from tests.learners.small_sequences import sequence
from tests.models.test_qwen2_5_vl import CONFIG, image

STEPS, UNTIL, ROWS = int(steps), int(until), 8
dcn, *inner = map(int, sizes.split(","))
mesh = LearnerMesh.of(MeshConfig(*inner, dcn=dcn))
model = Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))
SHAPE = BatchShape(ROWS, 32, ROWS, 24)
mesh.check(SHAPE, "batch")
OURS = range(process * ROWS // processes, (process + 1) * ROWS // processes)


def whole_batch(step, extras=lambda i, made: {}):
    # One sequence a row, so that every process can make its own rows of the very same batch.
    own = []
    for i in OURS:
        made = sequence(100 * step + i, 10 + (i + step) % 20, image(i, 4, 6) if i % 2 else None)
        own.append(made.__class__(made.token_ids, made.positions, made.loss_weights, made.images, made.image_token_id,
                                  extras(i, made)))
    return join_batches([pack([one], BatchShape(1, 32, 1, 24))[0].batch for one in own]), own


def data(start, _):
    for step in range(start, UNTIL):
        yield Step(whole_batch(step)[0])


SGD = OptimizerConfig(learning_rate=1e-2, warmup_steps=1)
run = RunConfig(checkpoint_every=4)
try:
    place = RunPlace(Path(workdir), "sft", run, show_progress=False)
    supervised.train(model, data, supervised.Updates(STEPS, SGD), place, mesh=mesh)
except DataError:
    # Cut short, with a checkpoint behind it.
    assert UNTIL < STEPS
    sys.exit()
if process == 0:
    records = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").open()]
    sft = [record["loss"] for record in records]
    print("SFT", json.dumps(sft))

graph, reference, frozen = split_model(model, ("vision",))
optimizer = make_optimizer(SGD, 2 * STEPS)
state = mesh.train_state(reference, frozen, optimizer)
loss = GRPOLossConfig(kl_coef=0.05, aggregation="sequence", importance_cap=2.0, kl_estimator="k2")
config = GRPOConfig(batch=SHAPE, loss=loss, epochs=2, updates_per_batch=1)
updater = PolicyUpdater(graph, mesh.place(reference), optimizer, config, CONFIG, mesh)


def extras(i, made):
    rng = np.random.default_rng(i)
    return {
        "advantages": np.full(len(made), rng.normal(), np.float32),
        "rollout_logprobs": rng.normal(-6.0, 0.3, len(made)).astype(np.float32),
    }


losses = []
for step in range(5):
    updated = updater.learn(state, whole_batch(step, extras)[1])
    state = updated.state
    losses.append([updated.metrics[name] for name in ("loss", "kl", "entropy", "grad_norm", "importance")])
if process == 0:
    print("GRPO", json.dumps(losses))
"""


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def run(workdir, sizes, devices, processes, steps, until=None):
    coordinator = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                _SCRIPT,
                str(workdir),
                sizes,
                str(number),
                str(processes),
                coordinator,
                str(steps),
                str(until or steps),
            ],
            env=cpu_devices.environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    ended = [process.communicate(timeout=600) for process in started]
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    lines = dict(line.split(" ", 1) for line in ended[0][0].splitlines() if line.startswith(("SFT", "GRPO")))
    return {name: json.loads(values) for name, values in lines.items()}


def compare(found, expected):
    np.testing.assert_allclose(found["SFT"], expected["SFT"], rtol=0, atol=1e-5)
    for one, other in zip(found["GRPO"], expected["GRPO"], strict=True):
        assert one == pytest.approx(other, abs=2e-5, rel=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_over_another_mesh_and_another_number_of_processes(tmp_path):
    expected = run(tmp_path / "one", "1,1,1,1,1", 1, 1, 8)
    # The four parts of a tensor axis divide the query heads, but not the two key/value heads.
    run(tmp_path / "moved", "1,1,2,4,1", 8, 1, 8, until=4)
    found = run(tmp_path / "moved", "1,2,1,1,1", 1, 2, 8)
    compare(found, expected)


@pytest.mark.slow
def test_training_on_every_kind_of_mesh(tmp_path):
    # Training amplifies differences in rounding: after 40 steps, rows in another order on one device differ by 4e-5.
    expected = run(tmp_path / "one", "1,1,1,1,1", 1, 1, 20)
    for number, (sizes, devices, processes) in enumerate(
        [
            ("1,1,8,1,1", 8, 1),
            ("1,2,2,1,2", 8, 1),
            ("1,1,2,2,2", 8, 1),
            ("1,1,2,1,1", 1, 2),
            ("1,2,2,1,1", 1, 4),
            ("2,1,2,1,1", 2, 2),
        ]
    ):
        compare(run(tmp_path / str(number), sizes, devices, processes, 20), expected)
