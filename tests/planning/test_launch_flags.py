"""A plan compiles with the flags that launch/env.sh sets."""

import os
import subprocess
from pathlib import Path

import pytest

from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning.launch_flags import compiler_options

ENV = Path(__file__).parents[2] / "launch" / "env.sh"


@pytest.mark.parametrize(
    ("topology", "slices", "kind"),
    [
        ("v5e:4x8", 1, "v5litepod-32"),
        ("v5p:2x2x4:2", 2, "v5p-32"),
        ("v6e:4x4", 1, "v6e-16"),
        ("v6e:4x4:2", 2, "v6e-16"),
    ],
)
def test_options_are_the_launch_script_s(topology, slices, kind):
    told = {"MMSEARCH_PLATFORM": "tpu", "MEGASCALE_NUM_SLICES": str(slices), "TPU_ACCELERATOR_TYPE": kind}
    script = subprocess.run(
        ["bash", "-c", f'. "{ENV}"; echo "$LIBTPU_INIT_ARGS"'],
        env={name: value for name, value in os.environ.items() if name != "LIBTPU_INIT_ARGS"} | told,
        capture_output=True,
        text=True,
        check=True,
    )
    set_there = dict(flag.removeprefix("--").split("=") for flag in script.stdout.split())
    assert compiler_options(parse(topology)) == set_there


def test_gpus_are_planned_on_cpu_devices_without_options():
    assert compiler_options(parse("h200:8")) == {}
