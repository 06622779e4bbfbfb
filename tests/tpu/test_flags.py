"""The launch scripts' flags for TPUs: libtpu knows them all (it does not start with an unknown flag)."""

import os
import subprocess
import sys

import pytest

from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning.launch_flags import compiler_options

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


@pytest.mark.parametrize(("topology", "slices"), [("v5e:2x4", 1), ("v5p:2x2x2", 2), ("v6e:2x4", 2), ("7x:2x2x2", 1)])
def test_libtpu_knows_every_flag(topology, slices):
    options = compiler_options(parse(f"{topology}:{slices}" if slices > 1 else topology))
    flags = " ".join(f"--{name}={value}" for name, value in options.items())
    assert ("data_parallel" in flags) == (slices > 1) and ("vmem" in flags) == topology.startswith("v6e")
    done = compiled(flags, topology.replace("7x", "tpu7x"), slices)
    assert "compiled" in done.stdout, done.stderr[-2000:]


def test_one_that_it_does_not_know_would_be_seen():
    done = compiled("--xla_tpu_no_such_flag=true", "v5e:2x4", 1)
    assert done.returncode != 0 and "xla_tpu_no_such_flag" in done.stderr
