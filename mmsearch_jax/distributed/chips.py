"""Chips: memory, peak rates, links. The only table of hardware facts; each row has its source.

Bytes and FLOPs are decimal (1e9, 1e12), as the vendors give them. FLOPs are for dense bf16: sparsity is not used.
"""

from __future__ import annotations

import dataclasses
import math

GIB = 2**30
_DOCS = "https://docs.cloud.google.com/tpu/docs/"


@dataclasses.dataclass(frozen=True)
class Chip:
    """Attributes:
    name: as in topology names ("v5p").
    kinds: lower-case parts of JAX's `device_kind` that identify the chip.
    hbm: bytes available to programs on the whole chip.
    flops: dense bf16 FLOPs per second of the whole chip.
    hbm_bandwidth: bytes per second.
    links: number of links to other chips.
    link_bandwidth: bytes per second of a link, one way: half of a link's share of the documented bandwidth.
    network: a chip's share of the network between slices (TPUs) or machines (GPUs), bytes per second, one way; 0: unknown.
    dims: of the torus; 0 for GPUs behind a switch.
    wraps_at: a dim of a slice is a ring if it is a multiple of this, otherwise a line.
    host: chips of one host along each dim, in slices of several hosts.
    devices: number of JAX devices per chip; each has an equal share of memory and rates.
    source: of the figures.
    clock: cycles per second of a TPU's cores; 0: unknown. v4: arXiv 2304.01433, table 4. The others follow from the peak, which
      is 2 x clock x number of MXUs x their 128 x 128 (v6e: 256 x 256) cells. A v5e has four MXUs, a v5p eight, a v6e four.
    """

    name: str
    kinds: tuple[str, ...]
    hbm: float
    flops: float
    hbm_bandwidth: float
    links: int
    link_bandwidth: float
    network: float
    dims: int
    wraps_at: int
    host: tuple[int, ...]
    devices: int
    source: str
    clock: float = 0.0

    @property
    def chips_per_host(self) -> int:
        """Number of chips per host in a slice of several hosts."""
        return math.prod(self.host)


# fmt: off
CHIPS = {chip.name: chip for chip in (
    # JAX shows a v4 as one device (both cores together, "megacore").
    Chip("v4", ("v4",), 32 * GIB, 275e12, 1228e9, 6, 50e9, 0, 3, 4, (2, 2, 1), 1, _DOCS + "v4; arXiv 2304.01433", 1.05e9),
    Chip("v5e", ("v5 lite", "v5e"), 16 * GIB, 197e12, 819e9, 4, 50e9, 25e9 / 8, 2, 16, (2, 2), 1, _DOCS + "v5e", 1.5e9),
    # 1 of 96 GiB is reserved for the runtime.
    Chip("v5p", ("v5p", "tpu v5"), 95 * GIB, 459e12, 2765e9, 6, 100e9, 50e9 / 8, 3, 4, (2, 2, 1), 1, _DOCS + "v5p", 1.75e9),
    Chip("v6e", ("v6",), 32 * GIB, 918e12, 1638e9, 4, 100e9, 100e9 / 8, 2, 16, (2, 2), 1, _DOCS + "v6e", 1.75e9),
    # Two chiplets; each is a device with half of the chip's memory and rates.
    Chip("7x", ("tpu7x", "v7"), 192 * GIB, 2307e12, 7380e9, 6, 100e9, 100e9 / 8, 3, 4, (2, 2, 1), 2, _DOCS + "tpu7x"),
    Chip("a100", ("a100",), 80e9, 312e12, 2039e9, 12, 25e9, 25e9, 0, 0, (8,), 1, "NVIDIA A100 80GB SXM, DGX A100 data sheets"),
    Chip("h100", ("h100",), 80e9, 989e12, 3350e9, 18, 25e9, 50e9, 0, 0, (8,), 1, "NVIDIA H100 SXM, DGX H100 data sheets"),
    Chip("h200", ("h200",), 141e9, 989e12, 4800e9, 18, 25e9, 50e9, 0, 0, (8,), 1, "NVIDIA H200, DGX H200 data sheets"),
    Chip("b200", ("b200",), 180e9, 2250e12, 8000e9, 18, 50e9, 50e9, 0, 0, (8,), 1, "NVIDIA DGX B200 data sheet"),
    Chip("l40s", ("l40s",), 48e9, 362e12, 864e9, 0, 32e9, 0, 0, 0, (8,), 1, "NVIDIA L40S data sheet (PCIe)"),
)}
# fmt: on


def chip_of(device_kind: str) -> Chip | None:
    """The chip with this JAX `device_kind`, or None if it is not in the table (a CPU). "TPU v5 lite" precedes "TPU v5"."""
    kind = device_kind.lower()
    return next((chip for chip in CHIPS.values() for part in chip.kinds if part in kind), None)
