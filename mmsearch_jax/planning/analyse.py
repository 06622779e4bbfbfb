"""Compiles one program for its slice and measures what it needs: one line of the plan.

Memory is the compiler's own figure. FLOPs and bytes are counted in the compiled program. Times are estimates from the
chip's rates.
"""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax

from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.planning.abstract import bytes_per_chip
from mmsearch_jax.planning.costs import Costs, count
from mmsearch_jax.planning.hlo import Module
from mmsearch_jax.planning.launch_flags import compiler_options
from mmsearch_jax.planning.programs import Program
from mmsearch_jax.planning.roofline import Roofline, roofline

_REFUSALS = (
    r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm",
    r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device as the compiler allocates them: `arguments` exist before the run, `temporaries` during it. `output`
    is what the run adds (donated arguments are overwritten), `code` the program itself. `peak` is the most that arrays
    occupy at one time; the total exceeds it by what is lost to fragmentation."""

    arguments: float
    temporaries: float
    output: float
    code: float
    peak: float

    @property
    def total(self) -> float:
        """Bytes that the program needs."""
        return self.arguments + self.temporaries + self.output + self.code


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of one program.

    Attributes:
      devices: number of devices of its mesh.
      memory: None if the compiler ran out of memory.
      needed: bytes needed on each device, which has `available` bytes.
      costs, roofline: None if the program does not fit.
      compile_seconds: measured on this machine.
    """

    program: Program
    topology: Topology
    memory: Memory | None
    needed: float
    available: float
    costs: Costs | None
    roofline: Roofline | None
    compile_seconds: float

    @property
    def devices(self) -> int:
        """Number of devices that share the program."""
        return self.program.mesh.size

    @property
    def fits(self) -> bool:
        """Whether the program fits the chips' memory."""
        return self.needed <= self.available

    @property
    def seconds(self) -> float | None:
        """Seconds of one run, by the roofline."""
        return self.roofline.seconds if self.roofline else None

    @property
    def mfu(self) -> float | None:
        """Model FLOPs divided by the FLOPs that the chips could execute in that time."""
        if not self.roofline or not self.program.work.model:
            return None
        peak = self.topology.chip.flops / self.topology.chip.devices * self.devices
        return self.program.work.model / (peak * self.roofline.seconds)

    @property
    def tokens_per_second_per_chip(self) -> float | None:
        """Tokens of a full batch, per second and chip."""
        if not self.roofline or not self.program.work.tokens:
            return None
        chips = self.devices / self.topology.chip.devices
        return self.program.work.tokens / self.roofline.seconds / chips


def analyse(program: Program, topology: Topology) -> tuple[Plan, str]:
    """Compiles and returns the plan with the compiled program's text ("" if compilation ran out of memory)."""
    began = time.monotonic()
    lowered = program.lower()
    chip = topology.chip
    available = chip.hbm / chip.devices
    try:
        compiled = lowered.compile(compiler_options=compiler_options(topology))
    except jax.errors.JaxRuntimeError as error:
        found = memory_in_error(str(error))
        if found is None:
            raise
        needed, limit = found
        # Some error messages count only the temporaries.
        needed = max(needed, hand_arguments(program))
        return Plan(program, topology, None, needed, min(limit, available), None, None, time.monotonic() - began), ""
    text = compiled.as_text()
    memory = memory_of(compiled)
    # The TPU compiler builds the program of one slice.
    slices = program.mesh.shape["dcn"] if topology.is_tpu else 1
    costs = count(Module(text), program.mesh.size // slices)
    seconds = roofline(costs, topology, list(program.mesh.devices.flat))
    return Plan(program, topology, memory, memory.total, available, costs, seconds, time.monotonic() - began), text


def memory_of(compiled: Any) -> Memory:
    """Memory by the compiler's figures."""
    stats = compiled.memory_analysis()
    return Memory(
        stats.argument_size_in_bytes,
        stats.temp_size_in_bytes,
        max(0, stats.output_size_in_bytes - stats.alias_size_in_bytes),
        stats.generated_code_size_in_bytes,
        stats.peak_memory_in_bytes,
    )


def memory_in_error(message: str) -> tuple[float, float] | None:
    """Bytes needed and bytes available, from the compiler's error message; None for another error."""
    for pattern in _REFUSALS:
        if found := re.search(pattern, message):
            needed, needed_unit, limit, unit = found.groups()
            return float(needed) * _UNITS[needed_unit], float(limit) * _UNITS[unit]
    return None


def hand_arguments(program: Program) -> float:
    """Bytes of a device's arguments, computed only from their shapes and shardings."""
    return bytes_per_chip(program.arguments)
