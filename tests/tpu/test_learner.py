"""The SFT step on a mesh of chips that are not present: the 7B's widths, two layers, compiled ahead of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.distributed.mesh import make_mesh
from mmsearch_jax.images.vision_inputs import VisionInputs
from mmsearch_jax.learners.supervised import weighted_loss
from mmsearch_jax.models.attention import compiling_for
from mmsearch_jax.models.axes import placement
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.lora import add_lora
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.policy import LoRAConfig, MeshConfig

CONFIG = ModelConfig(TextConfig(num_hidden_layers=2), VisionConfig(depth=2, fullatt_block_indexes=(1,)))
ROWS, LENGTH, IMAGES, PATCHES = 8, 4096, 16, 1024


def abstract(mesh):
    model = nnx.eval_shape(
        lambda: add_lora(
            Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16), LoRAConfig(8)
        )
    )
    model.set_remat("full")
    graph, updates, base = nnx.split(model, nnx.LoRAParam, ...)
    place = placement(mesh)

    def on_mesh(state):
        flat = [
            (
                path,
                leaf.replace(
                    jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place(".".join(map(str, path)), leaf.shape))
                ),
            )
            for path, leaf in nnx.to_flat_state(state)
        ]
        return nnx.from_flat_state(flat)

    return graph, on_mesh(updates), on_mesh(base)


def batch(mesh):
    def array(shape, dtype, spec):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    rows = ("data", "fsdp")
    ids = array((ROWS, LENGTH), jnp.int32, (rows, "sequence"))
    vision = VisionInputs(
        array((IMAGES, PATCHES, 588), jnp.uint8, (rows,)),
        array((IMAGES, PATCHES, 2), jnp.int32, (rows,)),
        array((IMAGES, PATCHES), jnp.int32, (rows,)),
        array((IMAGES, PATCHES), jnp.int32, (rows,)),
    )
    weights = array((ROWS, LENGTH), jnp.float32, (rows, "sequence"))
    return TokenBatch(ids, array((3, ROWS, LENGTH), jnp.int32, (None, rows, "sequence")), ids, weights, ids, vision, {})


@pytest.mark.parametrize("sizes", [(1, 8, 1, 1), (1, 2, 2, 2)])
def test_a_step_over_eight_chips_compiles_to_split_kernels(sizes):
    chips = topologies.get_topology_desc("v5e:2x4", "tpu").devices
    mesh = make_mesh(MeshConfig(*sizes), chips)
    assert set(mesh.axis_types) == {AxisType.Auto}
    graph, updates, base = abstract(mesh)

    def step(updates, base, batch):
        return jax.value_and_grad(lambda updates: weighted_loss(nnx.merge(graph, updates, base), batch)[0])(updates)

    with compiling_for("tpu"), jax.set_mesh(mesh):
        compiled = jax.jit(step).lower(updates, base, batch(mesh)).compile()
    program = compiled.as_text()
    # Splash attention on each chip's own rows and heads.
    assert "tpu_custom_call" in program
    heads = 28 // (sizes[2] * sizes[3])
    rows = ROWS // (sizes[0] * sizes[1])
    square = 4 * rows * heads * LENGTH * LENGTH
    memory = compiled.memory_analysis()
    own_weights = sum(
        leaf.dtype.itemsize * np.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(base)
    )
    assert memory.argument_size_in_bytes < 1.3 * own_weights + 2e8
    # Neither the float32 score matrix nor the logits of the batch are stored whole.
    assert memory.temp_size_in_bytes < min(square, 4 * rows * LENGTH * CONFIG.text.vocab_size) + 2e9
