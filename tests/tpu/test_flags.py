"""launch/env.sh's flags for TPUs: libtpu knows them all (it does not start with an unknown flag)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENV = Path(__file__).parents[2] / "launch" / "env.sh"
_SCRIPT = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
chips = topologies.get_topology_desc(sys.argv[1], "tpu", num_slices=int(sys.argv[2])).devices
rows = NamedSharding(Mesh(np.array(chips), ("x",)), PartitionSpec("x"))
x = jax.ShapeDtypeStruct((1024, 1024), jnp.bfloat16, sharding=rows)
assert "all-gather" in jax.jit(lambda x, w: (x @ w).sum()).lower(x, x).compile().as_text()
print("compiled")
"""


def compiled(flags, topology, slices):
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, topology, str(slices)],
        env={**os.environ, "LIBTPU_INIT_ARGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("topology", "slices", "kind"),
    [
        ("v5e:2x4", 1, "v5litepod-8"),
        ("v5p:2x2x2", 2, "v5p-16"),
        ("v6e:2x4", 2, "v6e-8"),
        ("tpu7x:2x2x2", 1, "tpu7x-16"),
    ],
)
def test_libtpu_knows_every_flag(topology, slices, kind):
    told = {"MMSEARCH_PLATFORM": "tpu", "MEGASCALE_NUM_SLICES": str(slices), "TPU_ACCELERATOR_TYPE": kind}
    flags = subprocess.run(
        ["bash", "-c", f'. "{ENV}"; echo "$LIBTPU_INIT_ARGS"'],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert ("data_parallel" in flags) == (slices > 1) and ("vmem" in flags) == kind.startswith("v6e")
    done = compiled(flags, topology, slices)
    assert "compiled" in done.stdout, done.stderr[-2000:]


def test_one_that_it_does_not_know_would_be_seen():
    done = compiled("--xla_tpu_no_such_flag=true", "v5e:2x4", 1)
    assert done.returncode != 0 and "xla_tpu_no_such_flag" in done.stderr
