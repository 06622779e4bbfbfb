"""Costs of a compiled program on one chip: FLOPs, bytes to and from HBM, and collectives, counted in its HLO text.

The compiler's own instructions are counted, so the figures include padding, poor splits and recomputation. FLOPs are those of
matrix products and attention kernels; a product of [m, k] and [k, n] is 2 m k n. Bytes are what each instruction reads
and writes once (for a fusion: its own operands and results), except data that stays in the chip's fast memory.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

from mmsearch_jax.planning.hlo import Array, Instruction, Module
from mmsearch_jax.planning.replica_groups import groups_of

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "partition-id",
    "replica-id",
    "copy-done",
    "after-all",
    "iota",
    "call-done",
    "async-done",
    "opt-barrier",
    "send",
    "recv",
    "send-done",
    "recv-done",
}
# Collectives between slices pass through the hosts; each chip sends its own part.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_KERNEL_PRODUCTS = {"_fwd": 2, "_dq": 3, "_dkv": 4}
"""Number of matrix products in each splash attention kernel: scores, values, and what the backward pass recomputes."""
_CAUSAL_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind and size over one kind of group, on one chip.

    Attributes:
      payload: bytes of the larger side (the gathered or the reduced array) of one collective.
      group: devices (positions on the mesh, row-major) in device 0's group.
      shape: of the array, as text.
      op_name: name of the JAX operation that needs it.
    """

    kind: str
    count: float
    payload: float
    group: tuple[int, ...]
    shape: str
    op_name: str

    @property
    def sent(self) -> float:
        """Bytes that a chip sends in one collective with ring algorithms."""
        size = len(self.group)
        share = self.payload * (size - 1) / max(size, 1)
        return {"all-reduce": 2 * share, "collective-permute": self.payload}.get(self.kind, share)


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of one run of a program on one chip.

    Attributes:
      flops: of matrix products and attention kernels.
      bytes: to and from HBM.
      kernels: runs of attention kernels by name.
      unknown: names of loops, kernels and collectives with unknown cost (counted once, or not at all).
      cycles: the TPU compiler's estimate for all instructions but kernels, one after the other; 0 for other chips.
      kernel_flops: the part of `flops` that attention kernels compute.
    """

    flops: float
    bytes: float
    collectives: tuple[Collective, ...]
    kernels: dict[str, float]
    unknown: tuple[str, ...]
    cycles: float = 0.0
    kernel_flops: float = 0.0


def count(module: Module, num_devices: int) -> Costs:
    """Counts a program that is compiled for this many devices (those of one slice, if it runs on several)."""
    flops = moved = cycles = kernel_flops = 0.0
    kernels: dict[str, float] = collections.defaultdict(float)
    unknown: set[str] = set()
    exchanges: dict[tuple, float] = collections.defaultdict(float)
    for name, instruction, times in module.runs():
        here = module.computations[name]
        body = module.inside(instruction) if instruction.opcode == "fusion" else {}
        for block, one in [(here, instruction), *((body, each) for each in body.values())]:
            flops += times * product_flops(one, block)
            if kind := _collective(one):
                try:
                    exchanges[_exchange(kind, one, block, num_devices)] += times
                except ValueError:
                    unknown.add(f"collective {one.name}")
        if instruction.opcode == "custom-call" and "tpu_custom_call" in instruction.rest:
            kernel, cost = _kernel_flops(instruction, here)
            kernel_flops += times * cost
            kernels[kernel] += times
            unknown |= set() if cost else {f"kernel {kernel}"}
        moved += times * _bytes(module, instruction, here)
        cycles += times * instruction.cycles
    unknown |= {f"loop {loop}" for loop in module.unbounded}
    found = [
        Collective(kind, times, size, group, shape, op) for (kind, size, group, shape, op), times in exchanges.items()
    ]
    flops += kernel_flops
    return Costs(flops, moved, tuple(found), dict(kernels), tuple(sorted(unknown)), cycles, kernel_flops)


def product_flops(instruction: Instruction, block: dict[str, Instruction]) -> float:
    """FLOPs of a `dot`, or of the `convolution` that the TPU compiler makes of it; 0 for other instructions."""
    if instruction.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (_array(block, name) for name in instruction.operands[:2])
    out = instruction.arrays[0]
    if left is None or right is None:
        return 0.0
    if instruction.opcode == "dot":
        dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
        inner = [left.dims[int(d)] for d in dims.group(1).split(",") if d] if dims else []
        return 2.0 * out.elements * math.prod(inner)
    return _convolution_flops(instruction, left, right, out)


def _convolution_flops(instruction: Instruction, left: Array, right: Array, out: Array) -> float:
    """Batched and split products are convolutions whose windows overlap padding. Like XLA, only real pairs are counted."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert labels is not None, instruction.rest
    window = re.search(r"window=\{([^}]*)\}", instruction.rest)
    options = dict(part.split("=") for part in window.group(1).split()) if window else {}
    inputs, kernel, outputs = labels.groups()
    spatial = [label for label in kernel if label.isdigit()]
    valid = 1.0
    for number, label in enumerate(spatial):

        def option(name: str, default: str, number: int = number) -> str:
            return options[name].split("x")[number] if name in options else default

        low = int(option("pad", "0_0").split("_")[0])
        valid *= _valid_pairs(
            left.dims[inputs.index(label)],
            right.dims[kernel.index(label)],
            out.dims[outputs.index(label)],
            int(option("stride", "1")),
            low,
            int(option("lhs_dilate", "1")),
            int(option("rhs_dilate", "1")),
        )
    others = math.prod(size for label, size in zip(outputs, out.dims, strict=True) if not label.isdigit())
    return 2.0 * valid * others * right.dims[kernel.index("i")]


def _valid_pairs(size: int, window: int, out: int, stride: int, low: int, base: int, spread: int) -> int:
    """Number of pairs of an output and a window position that read a real input, along one dim."""
    reach = (size - 1) * base + 1
    if window == 1 and base == 1 and low == 0:
        return min(out, -(-size // stride))
    return sum(
        0 <= (place := at * stride - low + k * spread) < reach and place % base == 0
        for at in range(out)
        for k in range(window)
    )


def _kernel_flops(instruction: Instruction, here: dict[str, Instruction]) -> tuple[str, float]:
    """Name of a splash attention kernel, and the FLOPs of the blocks that it does not skip."""
    kind = next((kind for kind in _KERNEL_PRODUCTS if kind in instruction.name), None)
    operands = [
        array for name in instruction.operands if (array := _array(here, name)) and array.kind in ("bf16", "f32")
    ]
    # Operands are queries, then keys; on a chip with one key head, keys lack the head dim.
    heads = [array for array in operands if len(array.dims) >= 2]
    causal = "causal_attention" in instruction.op_name
    name = f"splash{kind or ''} ({'causal' if causal else 'segments'})"
    if kind is None or len(heads) < 2:
        return instruction.name, 0.0
    queries, keys = heads[0], heads[1]
    *lead, length, width = queries.dims
    pairs = length * keys.dims[-2]
    if causal:
        block = min(_CAUSAL_BLOCK, length)
        pairs = pairs * (1 + block / length) / 2
    return name, 2.0 * _KERNEL_PRODUCTS[kind] * math.prod(lead) * pairs * width


def _collective(instruction: Instruction) -> str | None:
    if instruction.opcode == "send" and (between := _BETWEEN_SLICES.search(instruction.rest)):
        return between.group(1).lower().replace("_", "-")
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def _exchange(kind: str, instruction: Instruction, block: dict[str, Instruction], num_devices: int) -> tuple:
    inputs = [array for name in instruction.operands if (array := _array(block, name))]
    results = [array for array in instruction.arrays if array.dims]
    sides = [sum(array.bytes for array in inputs)]
    if not instruction.opcode.endswith("-start"):
        sides.append(sum(array.bytes for array in results))
    elif kind == "all-gather":
        # The results of a start instruction are (inputs, outputs).
        sides.append(sum(array.bytes for array in results[len(inputs) :]))
    shown = max((*results, *inputs), key=lambda array: array.bytes, default=None)
    shape = f"{shown.kind}[{','.join(map(str, shown.dims))}]" if shown else ""
    return kind, max(sides), groups_of(instruction.rest, num_devices), shape, instruction.op_name


def _array(block: dict[str, Instruction], name: str) -> Array | None:
    found = block.get(name)
    return found.arrays[0] if found is not None and found.arrays else None


def _bytes(module: Module, instruction: Instruction, here: dict[str, Instruction]) -> float:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0.0
    read = [_hbm(here[name].arrays) for name in instruction.operands if name in here]
    written = _hbm(instruction.arrays)
    if opcode in ("slice-start", "dynamic-slice-start"):
        # Of the whole operand only the slice is read; the results are (operands, slice, state).
        part = instruction.arrays[len(instruction.operands) :][:1] or instruction.arrays[1:2]
        return sum(array.bytes for array in part) + _hbm(part)
    if opcode.endswith("-start"):
        # Results repeat the operands and add state.
        target = instruction.arrays[1:2] if opcode != "copy-start" else instruction.arrays[:1]
        return sum(read) + _hbm(target)
    if opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if opcode == "dynamic-update-slice":
        return 2 * read[1] if len(read) > 1 else 0.0
    if opcode == "fusion":
        return _fusion_bytes(module.inside(instruction), read, written, instruction, here)
    return sum(read) + written


def _fusion_bytes(
    body: dict[str, Instruction],
    read: Sequence[float],
    written: float,
    fusion: Instruction,
    here: dict[str, Instruction],
) -> float:
    """HBM bytes of a fusion: it reads only the slices of an operand that it uses, and writes only the update of a result that
    it updates in place."""
    users: dict[str, list[Instruction]] = collections.defaultdict(list)
    for instruction in body.values():
        for name in instruction.operands:
            users[name].append(instruction)
    total = 0.0
    in_place: set[str] = set()
    root = next((instruction for instruction in body.values() if instruction.is_root), None)
    roots = [root] if root else []
    if root and root.opcode == "tuple":
        roots = [body[name] for name in root.operands if name in body]
    for each in roots:
        while each.opcode in ("bitcast", "reshape", "copy") and each.operands[0] in body:
            each = body[each.operands[0]]
        if each.opcode in ("dynamic-update-slice", "scatter"):
            target, update = (
                _array(body, each.operands[0]),
                _array(body, each.operands[1 if "slice" in each.opcode else 2]),
            )
            if target and update:
                written -= (target.bytes - update.bytes) if fusion.arrays[0].in_hbm else 0.0
                in_place.add(_source(body, each.operands[0]))
    for instruction in body.values():
        if instruction.opcode != "parameter":
            continue
        number = int(instruction.operands[0])
        whole = _hbm(here[fusion.operands[number]].arrays) if fusion.operands[number] in here else 0.0
        if not whole or instruction.name in in_place:
            continue
        total += min(whole, _sliced(instruction, users))
    return total + max(written, 0.0)


def _sliced(parameter: Instruction, users: dict[str, list[Instruction]]) -> float:
    """Bytes read from a fusion's parameter: all of it, or only the slices of it."""
    total = 0.0
    for user in users[parameter.name]:
        if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == parameter.name:
            total += user.arrays[0].bytes
        elif user.opcode in ("bitcast", "reshape"):
            total += _sliced(user, users)
        else:
            return math.inf
    return total


def _source(body: dict[str, Instruction], name: str) -> str:
    while name in body and body[name].opcode in ("bitcast", "reshape", "copy"):
        name = body[name].operands[0]
    return name


def _hbm(arrays: Sequence[Array]) -> float:
    return sum(array.bytes for array in arrays if array.in_hbm)
