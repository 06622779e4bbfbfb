"""The compiler flags with which `launch/env.sh` starts training on TPUs: a plan is made of the program that will run.

A test compares them with the script.
"""

from __future__ import annotations

from mmsearch_jax.distributed.topologies import Topology

_ALL = (
    "xla_tpu_enable_async_collective_fusion",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
    "xla_tpu_enable_async_collective_fusion_multiple_steps",
    "xla_tpu_overlap_compute_collective_tc",
    "xla_enable_async_all_gather",
)
_SLICES = ("xla_tpu_enable_data_parallel_all_reduce_opt", "xla_tpu_data_parallel_opt_different_sized_ops")
_VMEM = {"xla_tpu_scoped_vmem_limit_kib": "98304"}


def compiler_options(topology: Topology) -> dict[str, str]:
    """The options for `jax.stages.Lowered.compile`; empty for GPUs, which are planned on CPU devices."""
    if not topology.is_tpu:
        return {}
    options: dict[str, str] = dict.fromkeys(_ALL, "true")
    if topology.num_slices > 1:
        options |= dict.fromkeys(_SLICES, "true")
    return options | (_VMEM if topology.chip.name == "v6e" else {})
