"""The checks of a mesh, and the effect of a config's sharding rules."""

import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.mesh import AXES
from mmsearch_jax.distributed.sharding import partition_spec
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.policy import MeshConfig, ShardingConfig


class EightDevices:
    """A mesh of which only the shape is read."""

    shape = {"dcn": 1, "data": 1, "fsdp": 4, "tensor": 1, "sequence": 2}  # noqa: RUF012


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (BatchShape(6, 32), r"sft.batch.rows is 6, but the mesh splits it 4 ways \(dcn x data x fsdp\): set it to 8"),
        (BatchShape(8, 33), r"sft.batch.length is 33, but the mesh splits it 2 ways \(sequence\): set it to 32"),
        (BatchShape(8, 32, 3, 4), r"sft.batch.images is 3, .* set it to 4"),
    ],
)
def test_a_batch_that_the_mesh_or_the_tower_cannot_split_is_refused_with_the_nearest_that_it_can(shape, message):
    with pytest.raises(ConfigError, match=message):
        LearnerMesh(EightDevices()).check(shape, "sft.batch")  # type: ignore[arg-type]


def test_rules_of_a_config_take_the_place_of_the_table_s():
    mesh = LearnerMesh.of(MeshConfig(), ShardingConfig(embed=("tensor",), mlp=()))
    spec = partition_spec(("embed", "mlp"), (8, 8), AbstractMesh((1, 1, 4, 2, 1), AXES), mesh.rules)
    assert spec == PartitionSpec(("tensor",), None)
