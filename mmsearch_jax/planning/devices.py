"""Devices to compile for: TPUs that are not present, which libtpu can describe, and for GPUs the CPU devices of this machine.

Functions import JAX only when they are called, so that the environment for libtpu can be set first.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from typing import Any

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.topologies import Topology

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""libtpu must neither look for a TPU nor query Google Cloud; several processes may compile at the same time."""
_LIBTPU_NAMES = {"7x": "tpu7x"}
_MOST_GPUS = 1024


def devices_of(topology: Topology) -> list[Any]:
    """TPU devices that are not present; for GPUs an equal number of (virtual) CPU devices.

    Raises:
      ConfigError: libtpu is not installed, or does not know the slice.
    """
    if not topology.is_tpu:
        return _cpu_devices(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("libtpu is not installed, but compiling for TPUs needs it: pip install 'mmsearch-jax[plan]'")
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    chip = topology.chip.name
    more: dict[str, Any] = {"chip_config_name": "megacore"} if chip == "v4" else {}
    import jax
    from jax.experimental import topologies

    try:
        name = f"{_LIBTPU_NAMES.get(chip, chip)}:{topology.slice_shape}"
        return list(topologies.get_topology_desc(name, "tpu", num_slices=topology.num_slices, **more).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(f"libtpu does not know topology '{topology.name}' ({str(error).splitlines()[0]})") from error


def _cpu_devices(topology: Topology) -> list[Any]:
    import jax

    count = topology.num_devices
    if count > _MOST_GPUS:
        raise ConfigError(f"{topology.name}: at most {_MOST_GPUS} GPUs can be planned, each as a device of this CPU")
    # If JAX has already started, it must have enough devices.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ConfigError(
            f"JAX has started with {len(devices)} CPU devices, but {count} are needed: plan in a new process"
        )
    return devices[:count]
