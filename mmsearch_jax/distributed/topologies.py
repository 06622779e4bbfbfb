"""Topology names: a TPU slice such as "v5p:2x2x4", several slices ("v5p:4x4x4:2"), or a number of GPUs ("h100:16").

This is the only parser of such names, with a list of the slices that can be ordered. It depends on chips and hosts, not on
meshes, models or JAX.
"""

from __future__ import annotations

import dataclasses
import difflib
import math

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.chips import CHIPS, Chip

_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
# Parts of a cube of 4 x 4 x 4 chips, then the usual shapes of several cubes.
_DEEP = (
    "2x2x1",
    "2x2x2",
    "2x2x4",
    "2x4x4",
    "4x4x4",
    "4x4x8",
    "4x4x12",
    "4x8x8",
    "8x8x8",
    "8x8x12",
    "8x8x16",
    "8x16x16",
    "12x12x12",
    "16x16x16",
)
SLICES = {"v4": _DEEP, "v5e": _FLAT, "v5p": (*_DEEP, "16x16x24"), "v6e": _FLAT, "7x": _DEEP}
"""Shapes that can be ordered, from the documentation that `chips` names."""
_ALIASES = {"v5litepod": "v5e", "v6": "v6e", "v7x": "7x", "tpu7x": "7x"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several TPU slices, or GPUs in one or several machines.

    Attributes:
      shape: chips along each dim of a slice; for GPUs their number.
      num_slices: number of slices; only the data centre's network connects them.
    """

    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def name(self) -> str:
        """The name in the form that `parse` reads."""
        slices = f":{self.num_slices}" if self.num_slices > 1 else ""
        return f"{self.chip.name}:{self.slice_shape}{slices}"

    @property
    def slice_shape(self) -> str:
        """The shape as "2x2x4"."""
        return "x".join(map(str, self.shape))

    @property
    def is_tpu(self) -> bool:
        """Whether it consists of TPUs, not GPUs."""
        return self.chip.dims > 0

    @property
    def num_chips(self) -> int:
        """Number of chips in all slices."""
        return math.prod(self.shape) * self.num_slices

    @property
    def num_devices(self) -> int:
        """Number of devices in all slices, as `jax.devices()` counts them."""
        return self.num_chips * self.chip.devices

    @property
    def host(self) -> Topology:
        """The part of the topology on one host."""
        if self.is_tpu:
            return Topology(self.chip, self.chip.host)
        return Topology(self.chip, (min(self.num_chips, self.chip.chips_per_host),))

    @property
    def num_hosts(self) -> int:
        """Number of machines in all slices."""
        return self.num_chips // self.host.num_chips

    @property
    def num_domains(self) -> int:
        """Number of slices, or of GPU machines: chip links connect a domain, the network connects domains."""
        return self.num_slices if self.is_tpu else self.num_hosts

    @property
    def num_processes(self) -> int:
        """Number of JAX processes: one per TPU host, one per GPU (launch/slurm.sbatch)."""
        return self.num_hosts if self.is_tpu else self.num_chips

    def ring(self, dim: int) -> bool:
        """Whether the chips along this dim of a slice are a ring."""
        return self.is_tpu and self.shape[dim] % self.chip.wraps_at == 0


def parse(text: str) -> Topology:
    """The topology of a name.

    Raises:
      ConfigError: the name cannot be read, or the topology cannot be ordered; the message lists valid ones.
    """
    name, *rest = text.strip().lower().split(":")
    name = _ALIASES.get(name, name)
    if of_cloud := _accelerator_type(name):
        raise ConfigError(f"topology '{text}' is an accelerator type of Google Cloud: as a topology it is {of_cloud}")
    if name not in CHIPS:
        near = difflib.get_close_matches(name, CHIPS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"topology '{text}': no chip '{name}' is known: {hint}known are {', '.join(CHIPS)}")
    return _gpus(text, CHIPS[name], rest) if name not in SLICES else _slices(text, CHIPS[name], rest)


def _gpus(text: str, chip: Chip, rest: list[str]) -> Topology:
    box, count = chip.chips_per_host, _count(rest[0]) if len(rest) == 1 else 0
    if not count or (count > box and count % box):
        raise ConfigError(
            f"topology '{text}': give the number of GPUs: up to {box} in one machine or a multiple of {box} in several, such "
            f"as {chip.name}:{2 * box}"
        )
    return Topology(chip, (count,))


def _slices(text: str, chip: Chip, rest: list[str]) -> Topology:
    known = SLICES[chip.name]
    sizes = [_count(size) for size in rest[0].split("x")] if rest else []
    slices = [_count(number) for number in rest[1:]] or [1]
    if not all(sizes) or not sizes or slices[0] < 1 or len(slices) > 1:
        example = f"{chip.name}:{known[2]}"
        raise ConfigError(f"topology '{text}' cannot be read: write {example}, or {example}:2 for two slices")
    if rest[0] not in known:
        raise ConfigError(
            f"topology '{text}' cannot be ordered: the nearest is {chip.name}:{_nearest(sizes, known)}; slices of "
            f"{chip.name} are {', '.join(known)}"
        )
    return Topology(chip, tuple(sizes), slices[0])


def of_accelerator_type(name: str) -> Topology | None:
    """The topology of a slice that Google Cloud names by its size, such as "v5p-32"; None for any other text.

    Raises:
      ConfigError: no slice has this size.
    """
    nearest = _accelerator_type(name.strip().lower())
    if not nearest:
        return None
    topology = parse(nearest)
    if _chips_of_type(name) != topology.num_chips:
        raise ConfigError(f"accelerator type '{name}' cannot be ordered: the nearest slice is {nearest}")
    return topology


def _chips_of_type(name: str) -> int:
    """Chips of an accelerator type: v4 and v5p count cores (two a chip), others chips."""
    generation, _, size = name.strip().lower().partition("-")
    return _count(size) // (2 if _ALIASES.get(generation, generation) in ("v4", "v5p") else 1)


def _accelerator_type(name: str) -> str:
    """The name of the topology nearest to the size of an accelerator type such as "v5p-128"; "" for any other text."""
    generation, _, size = name.partition("-")
    generation = _ALIASES.get(generation, generation)
    if generation not in SLICES or not _count(size):
        return ""
    return f"{generation}:{_nearest([max(1, _chips_of_type(name))], SLICES[generation])}"


def _count(text: str) -> int:
    """The number in the text, or 0 if it is not a number."""
    return int(text) if text.isdecimal() else 0


def _nearest(sizes: list[int], known: tuple[str, ...]) -> str:
    def distance(other: str) -> tuple[float, bool]:
        others = [int(size) for size in other.split("x")]
        return abs(math.log(math.prod(sizes) / math.prod(others))), sorted(others) != sorted(sizes)

    return min(known, key=distance)
