"""Seconds and memory of a piece of work, for both sides alike: peers read it beside them, and it needs Python alone."""

import collections
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def nothing(*_: Any) -> None:
    """For work that is done when its call returns, or that needs no preparation."""


def seconds(
    run: Callable[[], Any], repeats: int, wait: Callable[[Any], Any] = nothing, prepare: Callable[[], Any] = nothing
) -> list[float]:
    """Seconds of each of `repeats` calls, after one that is not counted; `wait` is given what a call returned, and `prepare`
    runs before each, uncounted."""
    times = []
    for _ in range(repeats + 1):
        prepare()
        began = time.perf_counter()
        wait(run())
        times.append(time.perf_counter() - began)
    return times[1:]


def in_turns(turns: int, *sides: Callable[[], dict[str, list[float]]]) -> list[dict[str, list[float]]]:
    """Each side's values by name, some of them from every turn: a machine that is slower for a while slows all sides."""
    found: list[dict[str, list[float]]] = [collections.defaultdict(list) for _ in sides]
    for _ in range(turns):
        for side, values in zip(sides, found, strict=True):
            for name, some in side().items():
                values[name] += some
    return found


def memory(run: Callable[[], Any]) -> int:
    """Bytes of host memory that a call takes at its height above what was resident before; 0 where Linux does not tell."""
    try:
        # Makes the kernel forget the height that was reached before (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
    except OSError:
        return 0
    run()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))
