"""Parses a compiled program's HLO text into computations and instructions, with the number of times that each runs.

It knows only HLO's grammar (`costs` counts costs). A while loop counts as many times as its condition's bound says, whereas
XLA's own analysis counts its body once.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

_BYTES = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
    "c64": 8,
    "f8e4m3fn": 1,
    "f8e5m2": 1,
    "token": 0,
}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([^ ]+) \(.*\) -> .* \{$")
_NAME = re.compile(r"^(ROOT )?%?([^ ]+) = ")
_FAST_MEMORY = "S(1)"
_NO_ESTIMATE = 2**62


@dataclasses.dataclass(frozen=True)
class Array:
    """An array's type: element kind, dims, and whether it is in HBM instead of the chip's fast memory."""

    kind: str
    dims: tuple[int, ...]
    in_hbm: bool

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        """Size without padding."""
        return self.elements * _BYTES.get(self.kind, 4)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: `arrays` are the types of its results, `operands` names, `rest` all attributes as text."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    rest: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """The value of an attribute that is a computation's name or a word: `body`, `calls`, `direction`."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found.group(1) if found else None

    @property
    def cycles(self) -> int:
        """The TPU compiler's own estimate of the instruction's clock cycles; 0 where it gives none.

        Work for the SparseCores has the largest 64-bit number there, which is no estimate.
        """
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        cycles = int(found.group(1)) if found else 0
        return cycles if cycles < _NO_ESTIMATE else 0

    @property
    def op_name(self) -> str:
        """The path of JAX's operations that it was made from."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found.group(1) if found else ""


class Module:
    """A compiled program. Attributes: `computations` (instructions by name, in order) and `entry`."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        self.unbounded: list[str] = []
        """Loops without a known bound, which count once."""
        current: dict[str, Instruction] | None = None
        pending = ""
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                current = self.computations.setdefault(head.group(2), {})
                self.entry = head.group(2) if head.group(1) else self.entry
            elif line == "}":
                _add(current, pending)
                current, pending = None, ""
            elif current is not None:
                if _NAME.match(line.strip()) and line.startswith("  "):
                    _add(current, pending)
                    pending = line.strip()
                else:  # attributes may contain line breaks
                    pending += line
        if not self.entry:
            raise ValueError("not the text of a compiled program: it has no ENTRY computation")

    def runs(self) -> Iterator[tuple[str, Instruction, float]]:
        """Computation, instruction and number of runs for everything that is executed; a fusion is one instruction."""
        yield from self._runs(self.entry, 1)

    def _runs(self, name: str, times: float) -> Iterator[tuple[str, Instruction, float]]:
        for instruction in self.computations[name].values():
            if instruction.opcode == "while":
                trips = self.trips(instruction, self.computations[name])
                if trips is None:
                    self.unbounded.append(instruction.name)
                yield from self._runs(instruction.attribute("body") or "", times * (trips or 1))
                continue
            if instruction.opcode == "conditional":
                # Only one branch runs, which the text does not say: the first one represents all.
                branches = re.findall(r"%([\w.\-]+)", instruction.rest.split("branch_computations={")[-1].split("}")[0])
                if branches:
                    yield from self._runs(branches[0], times)
                continue
            if instruction.opcode in ("call", "call-start", "async-start"):
                called = instruction.attribute("to_apply") or instruction.attribute("calls")
                if called in self.computations:
                    yield from self._runs(called, times)
                    continue
            yield name, instruction, times

    def inside(self, fusion: Instruction) -> dict[str, Instruction]:
        """The instructions of a fusion."""
        return self.computations.get(fusion.attribute("calls") or "", {})

    def trips(self, loop: Instruction, around: dict[str, Instruction]) -> int | None:
        """Maximum number of iterations of a loop, from its counter's start, step and bound, or None if unknown.

        Args:
          loop: a `while`; `around` is the computation that contains it.
        """
        condition = self.computations.get(loop.attribute("condition") or "", {})
        found = self._counter_and_bound(condition)
        if found is None:
            return None
        place, bound = found
        body = self.computations[loop.attribute("body") or ""]
        root = next(instruction for instruction in body.values() if instruction.is_root)
        step = self._steps(body, root.operands[place], place) if root.opcode == "tuple" else 1
        initial = around.get(loop.operands[0])
        start = _constant(around, initial.operands[place]) if initial is not None and initial.opcode == "tuple" else 0
        return -(-(bound - (start or 0)) // (step or 1))

    def _counter_and_bound(self, condition: dict[str, Instruction]) -> tuple[int, int] | None:
        """Index of the counter in the loop's tuple, and the constant that bounds it."""
        for instruction in condition.values():
            block = self.inside(instruction) if instruction.opcode == "fusion" else {instruction.name: instruction}
            given = [condition.get(name) for name in instruction.operands] if instruction.opcode == "fusion" else []
            for compare in block.values():
                if compare.opcode != "compare" or compare.attribute("direction") not in ("LT", "GT"):
                    continue
                sides = [_outside(name, block, given) or condition.get(name) for name in compare.operands]
                place = next((_place(side) for side in sides if _place(side) is not None), None)
                bound = next((_value(side) for side in sides if _value(side) is not None), None)
                if place is not None and bound is not None:
                    return place, bound
        return None

    def _steps(self, body: dict[str, Instruction], name: str, place: int) -> int | None:
        """Step of the counter in the body: the sum of the constants added between its tuple element and its new value."""
        total = 0
        while (instruction := body.get(name)) is not None:
            if _place(instruction) == place:
                return total or None
            inner, given = {instruction.name: instruction}, []
            if instruction.opcode == "fusion":
                inner, given = self.inside(instruction), [body.get(each) for each in instruction.operands]
            add = next((each for each in inner.values() if each.opcode == "add"), None)
            if add is None:
                if instruction.opcode not in ("copy", "bitcast"):
                    return None
                name = instruction.operands[0]
                continue
            following = None
            for each in add.operands:
                source = _outside(each, inner, given) or body.get(each)
                if (value := _value(source)) is not None:
                    total += value
                elif source is not None:
                    following = source.name
            if following is None:
                return None
            name = following
        return None


def _outside(name: str, block: dict[str, Instruction], given: list[Instruction | None]) -> Instruction | None:
    """Resolves an operand inside a fusion: a constant there, or the fusion's own operand."""
    found = block.get(name)
    if found is not None and found.opcode == "parameter":
        return given[int(found.operands[0])] if given else None
    return found


def _place(instruction: Instruction | None) -> int | None:
    if instruction is None or instruction.opcode != "get-tuple-element":
        return None
    return int(instruction.attribute("index") or 0)


def _value(instruction: Instruction | None) -> int | None:
    if instruction is None or instruction.opcode != "constant" or not instruction.operands[0].lstrip("-").isdigit():
        return None
    return int(instruction.operands[0])


def _constant(block: dict[str, Instruction], name: str) -> int | None:
    found = block.get(name)
    while found is not None and found.opcode in ("copy", "bitcast"):
        found = block.get(found.operands[0])
    return _value(found)


def _add(computation: dict[str, Instruction] | None, text: str) -> None:
    if computation is None or not text:
        return
    text = re.sub(r"/\*index=\d+\*/", "", text)
    name = _NAME.match(text)
    if name is None:
        return
    rest = text[name.end() :]
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ") - 1
    shape, rest = rest[: end + 1], rest[end + 2 :]
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inner = rest[len(opcode) + 1 : close]
    if opcode in ("parameter", "constant"):
        operands = (inner,)
    else:
        operands = tuple(part.strip().split(" ")[-1].lstrip("%") for part in _split(inner))
    arrays = tuple(
        Array(kind, tuple(int(d) for d in dims.split(",") if d), _FAST_MEMORY not in (layout or ""))
        for kind, dims, layout in _ARRAY.findall(shape)
        if kind in _BYTES
    )
    computation[name.group(2)] = Instruction(
        name.group(2), opcode, arrays, operands, rest[close + 1 :], bool(name.group(1))
    )


def _closing(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses in '{text[:80]}'")


def _split(text: str) -> list[str]:
    parts, depth, last = [], 0, 0
    for index, letter in enumerate(text):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(text[last:index])
            last = index + 1
    return [part for part in [*parts, text[last:]] if part.strip()]
