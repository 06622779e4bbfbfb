"""Abstract states equal those of training: the same shapes, shardings and programs."""

import subprocess
import sys

from tests import cpu_devices

_SCRIPT = """
import jax, numpy as np
from flax import nnx
from mmsearch_jax.data.batches import empty_batch
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.policy import MeshConfig
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.learners.train_state import make_optimizer, split_model
from mmsearch_jax.settings.learning import OptimizerConfig
from mmsearch_jax.models.lora import add_lora
from mmsearch_jax.settings.policy import LoRAConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.planning.abstract import batch_shapes
from tests.models.test_qwen2_5_vl import CONFIG

mesh = LearnerMesh.of(MeshConfig(1, 2, 2, 1))
optimizer = make_optimizer(OptimizerConfig(), 10)
shape = BatchShape(2, 32, 2, 24)
for rank in (0, 4):
    def make():
        plain = Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))
        return add_lora(plain, LoRAConfig(rank)) if rank else plain

    graph, trained, frozen = split_model(make(), ("vision",))
    _, abstract_trained, abstract_frozen = split_model(nnx.eval_shape(make), ("vision",))
    real = mesh.train_state(trained, frozen, optimizer)
    abstract = mesh.abstract_train_state(abstract_trained, abstract_frozen, optimizer)
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    for ours, theirs in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert ours.sharding.is_equivalent_to(theirs.sharding, theirs.ndim), (ours, theirs.sharding)

    update = SupervisedUpdate(graph, optimizer, mesh=mesh)
    batch = mesh.batch(empty_batch(shape))
    planned = update.at_once.lower(abstract, mesh.abstract_batch(batch_shapes(shape, CONFIG.vision)))
    run = update.at_once.lower(real, batch)
    assert planned.as_text() == run.as_text()
print("the same")
"""


def test_the_planned_program_is_the_one_that_training_runs_on_four_devices():
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=cpu_devices.environment(4),
    )
    assert done.returncode == 0 and "the same" in done.stdout, done.stderr
