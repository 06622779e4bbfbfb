"""Slices by name: "v5p:2x2x4" or "h100:8" -> the chip, the shape, and devices to compile for.

Devices of TPU slices come from libtpu, which needs no TPU for it. JAX is imported when devices are asked for, so that what
libtpu must find in the environment can be set before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import math
import os
import re
from typing import Any

from mmsearch_jax.distributed.chips import CHIPS, Chip
from mmsearch_jax.errors import ConfigError

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""libtpu must neither look for a TPU nor ask Google Cloud for one; several processes may compile at once."""
_KNOWN = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": (
        "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16", "16x16x24",
    ),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "7x": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"),
}  # fmt: skip
"""Slices that can be ordered, from the pages that `chips` names (the larger ones are not complete)."""
_LIBTPU_NAMES = {"7x": "tpu7x"}
_ALIASES = {"v7x": "7x", "tpu7x": "7x", "v5litepod": "v5e", "v6": "v6e"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of TPUs, or GPUs of one or several boxes.

    Attributes:
      shape: chips along each dim of the slice.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def num_chips(self) -> int:
        """Of the whole slice."""
        return math.prod(self.shape)

    @property
    def is_tpu(self) -> bool:
        """Whether it can be compiled for."""
        return self.chip.dims > 0

    @property
    def host(self) -> Topology:
        """What one host has of it."""
        if not self.is_tpu:
            return Topology(self.chip, (min(self.num_chips, self.chip.chips_per_host),))
        # A slice of eight chips in two dims is one host.
        return (
            self
            if self.num_chips <= self.chip.chips_per_host or self.shape == (2, 4)
            else Topology(self.chip, self.chip.host)
        )

    def ring(self, dim: int) -> bool:
        """Whether the chips along this dim of the slice are a ring."""
        return self.chip.dims > 0 and self.shape[dim] % self.chip.wraps_at == 0

    def devices(self) -> list[Any]:
        """Devices to compile for: absent TPUs, or for GPUs as many of this machine's (virtual) CPU devices.

        Raises:
          ConfigError: libtpu is not installed, or does not know the slice.
        """
        if not self.is_tpu:
            return _cpu_devices(self.num_chips)
        if importlib.util.find_spec("libtpu") is None:
            raise ConfigError("libtpu is not installed, which compiles for TPUs: pip install 'mmsearch-jax[plan]'")
        os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
        name = f"{_LIBTPU_NAMES.get(self.chip.name, self.chip.name)}:{'x'.join(map(str, self.shape))}"
        more: dict[str, Any] = {"chip_config_name": "megacore"} if self.chip.name == "v4" else {}
        if math.prod(self.shape) < self.chip.chips_per_host:
            more["chips_per_host_bounds"] = [*self.shape, 1, 1][:3]
        import jax
        from jax.experimental import topologies

        try:
            return list(topologies.get_topology_desc(name, "tpu", **more).devices)
        except jax.errors.JaxRuntimeError as error:
            raise ConfigError(f"libtpu knows no topology '{self.name}' ({str(error).splitlines()[0]})") from error


def parse_topology(text: str) -> Topology:
    """Reads "v5p:2x2x4", or "h100:8" for GPUs.

    Raises:
      ConfigError: no such chip or slice; the nearest, or those that are known, are named.
    """
    name, colon, sizes = text.strip().lower().partition(":")
    name = _ALIASES.get(name, name)
    if name not in CHIPS:
        near = difflib.get_close_matches(name, CHIPS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"no chip '{name}' is known: {hint}known are {', '.join(CHIPS)}")
    chip = CHIPS[name]
    example = f"{name}:{_KNOWN[name][2]}" if chip.dims else f"{name}:8"
    if not colon or not re.fullmatch(r"\d+(x\d+)*", sizes):
        raise ConfigError(f"cannot read the topology '{text}': write it as {example}")
    shape = tuple(map(int, sizes.split("x")))
    if not chip.dims:
        if len(shape) != 1 or not 1 <= shape[0] <= 1024:
            raise ConfigError(f"GPUs are counted, up to 1024: {example}, not '{text}'")
        return Topology(chip, shape)
    if sizes not in _KNOWN[name]:
        raise ConfigError(
            f"no slice '{text}' can be ordered: the nearest is {name}:{_nearest(shape, _KNOWN[name])}; known are "
            f"{', '.join(_KNOWN[name])}"
        )
    return Topology(chip, shape)


def known_slices(chip: str) -> list[Topology]:
    """All slices of a kind of TPU, the smallest first."""
    return [Topology(CHIPS[chip], tuple(map(int, sizes.split("x")))) for sizes in _KNOWN[chip]]


def _nearest(shape: tuple[int, ...], known: tuple[str, ...]) -> str:
    def distance(sizes: str) -> tuple[float, bool]:
        other = tuple(map(int, sizes.split("x")))
        return abs(math.log(max(1, math.prod(shape)) / math.prod(other))), sorted(other) != sorted(shape)

    return min(known, key=distance)


def _cpu_devices(count: int) -> list[Any]:
    import jax

    # JAX may have started: then there must be enough.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ConfigError(
            f"JAX has started with {len(devices)} CPU devices, {count} are needed: plan in a fresh process"
        )
    return devices[:count]
