"""Names of machines: a TPU slice such as "v5p:2x2x4", several slices ("v5p:4x4x4:2"), or a number of GPUs ("h100:16").

It knows what a name stands for (chips, hosts, JAX devices, GKE's name), nothing of meshes or models, and needs no JAX.
"""

from __future__ import annotations

import dataclasses
import difflib
import math

from mmsearch_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Generation:
    """A kind of chip.

    Attributes:
      shapes: the slices that can be had; empty for GPUs, which are counted.
      devices_per_chip: as JAX counts them.
      gke: what GKE calls it in `cloud.google.com/gke-tpu-accelerator`.
      xpk: how XPK's `--tpu-type` begins.
    """

    name: str
    shapes: tuple[str, ...] = ()
    devices_per_chip: int = 1
    gke: str = ""
    xpk: str = ""


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
# Parts of a cube of 4 x 4 x 4 chips, then cubes.
_DEEP = (
    "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x4x12", "4x8x8", "8x8x8", "8x8x12", "8x8x16", "8x16x16", "12x12x12",
    "16x16x16",
)  # fmt: skip
GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v5e", _FLAT, 1, "tpu-v5-lite-podslice", "v5litepod"),
        Generation("v5p", _DEEP, 1, "tpu-v5p-slice", "v5p"),
        Generation("v6e", _FLAT, 1, "tpu-v6e-slice", "v6e"),
        Generation("7x", _DEEP, 2, "tpu7x", "tpu7x"),
        Generation("h100"),
        Generation("h200"),
    )
}
_ALIASES = {"tpu7x": "7x", "v7x": "7x", "v5litepod": "v5e"}
CHIPS_PER_HOST = 4
"""Of a TPU slice's hosts, which are JAX's processes."""
GPUS_PER_HOST = 8


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several slices of a generation, or a number of GPUs.

    Attributes:
      shape: chips along each dim of a slice; for GPUs their number.
      num_slices: slices, which only the data centre's network connects.
    """

    generation: Generation
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def name(self) -> str:
        """As `parse` reads it."""
        slices = f":{self.num_slices}" if self.num_slices > 1 else ""
        return f"{self.generation.name}:{self.slice_shape}{slices}"

    @property
    def slice_shape(self) -> str:
        """The shape as "2x2x4"."""
        return "x".join(map(str, self.shape))

    @property
    def is_gpu(self) -> bool:
        """Whether it is made of GPUs."""
        return not self.generation.shapes

    @property
    def num_devices(self) -> int:
        """Of all slices, as `jax.devices()` counts them."""
        return math.prod(self.shape) * self.num_slices * self.generation.devices_per_chip

    @property
    def hosts_per_slice(self) -> int:
        """Machines of one slice."""
        return math.prod(self.shape) // (GPUS_PER_HOST if self.is_gpu else CHIPS_PER_HOST)

    @property
    def num_processes(self) -> int:
        """JAX's: one a host of TPUs, one a GPU (launch/slurm.sbatch)."""
        return self.num_devices if self.is_gpu else self.hosts_per_slice * self.num_slices


def parse(text: str) -> Topology:
    """The topology of a name.

    Raises:
      ConfigError: it cannot be read, or cannot be had; says what can.
    """
    name, *rest = text.strip().lower().split(":")
    name = _ALIASES.get(name, name)
    if name not in GENERATIONS:
        near = difflib.get_close_matches(name, GENERATIONS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"topology '{text}': no chip '{name}' is known: {hint}known are {', '.join(GENERATIONS)}")
    generation = GENERATIONS[name]
    if not generation.shapes:
        if len(rest) != 1 or not rest[0].isdecimal() or int(rest[0]) < 1 or int(rest[0]) % GPUS_PER_HOST:
            raise ConfigError(f"topology '{text}': GPUs come by the {GPUS_PER_HOST}, such as {name}:16")
        return Topology(generation, (int(rest[0]),))
    if not 1 <= len(rest) <= 2 or not all(rest) or not (len(rest) == 1 or (rest[1].isdecimal() and int(rest[1]) > 0)):
        example = f"{name}:{generation.shapes[2]}"
        raise ConfigError(f"topology '{text}' cannot be read: write {example}, or {example}:2 for two slices")
    if rest[0] not in generation.shapes:
        raise ConfigError(f"topology '{text}': slices of {name} are {', '.join(generation.shapes)}")
    return Topology(generation, tuple(map(int, rest[0].split("x"))), int(rest[1]) if len(rest) == 2 else 1)
