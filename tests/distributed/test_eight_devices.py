"""Eight devices compute the same as one; each loads only its own part of a checkpoint."""

import subprocess
import sys

from tests import cpu_devices

_SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from mmsearch_jax.data.batches import pack
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.distributed.mesh import BATCH_AXES, make_mesh
from mmsearch_jax.settings.policy import MeshConfig
from mmsearch_jax.learners.supervised import weighted_loss
from mmsearch_jax.models import hf
from mmsearch_jax.models.axes import placement
from tests.learners.test_training import image, model, sequence
from tests.models.test_qwen2_5_vl import CONFIG
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL

dcn, data, fsdp, tensor, sequence_size = map(int, sys.argv[2].split(","))
hf.save_pretrained(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), sys.argv[1])
sequences = [sequence(i, 10 + i, image(i, 4, 6) if i % 2 else None) for i in range(8)]
packed, left = pack(sequences, BatchShape(8, 32, 8, 24))
assert not left

def loss_and_gradients(place, put):
    loaded, _ = hf.load_pretrained(sys.argv[1], place=place)
    graph, state = nnx.split(loaded)
    batch = jax.tree.map(put, packed.batch)
    function = jax.jit(jax.value_and_grad(lambda state: weighted_loss(nnx.merge(graph, state), batch)[0]))
    return function(state), state

(loss, gradients), _ = loss_and_gradients(None, jnp.asarray)
mesh = make_mesh(MeshConfig(data, fsdp, tensor, sequence_size, dcn=dcn))
rows = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
whole = NamedSharding(mesh, PartitionSpec())
(split_loss, split_gradients), state = loss_and_gradients(
    placement(mesh), lambda x: jax.device_put(x, rows if x.shape[0] == 8 else whole)
)
split = [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]
assert (fsdp * tensor == 1) == (not split), len(split)
np.testing.assert_allclose(split_loss, loss, atol=1e-5)
worst = max(float(jnp.abs(a - b).max()) for a, b in zip(
    jax.tree.leaves(jax.device_get(gradients)), jax.tree.leaves(jax.device_get(split_gradients)), strict=True))
assert worst < 1e-5, worst
print("worst gradient difference", worst)
"""


def test_eight_devices_equal_one(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "hf"), "1,2,2,2,1"],
        env=cpu_devices.environment(8),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "worst gradient difference" in ran.stdout
