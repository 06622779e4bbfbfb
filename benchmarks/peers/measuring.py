"""Seconds and memory of a piece of work, for both sides. The peers import it too, so it needs only Python."""

import collections
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def nothing(*_: Any) -> None:
    """For work that is complete when its call returns, or that needs no preparation."""


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
    """The values of each side by name, measured in turns, so that a machine that slows down for a while slows all sides."""
    found: list[dict[str, list[float]]] = [collections.defaultdict(list) for _ in sides]
    for _ in range(turns):
        for side, values in zip(sides, found, strict=True):
            for name, some in side().items():
                values[name] += some
    return found


def memory(run: Callable[[], Any]) -> int:
    """Peak host memory of a call in bytes, above what was resident before; 0 if Linux does not report it."""
    try:
        # Resets the kernel's peak value (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
    except OSError:
        return 0
    run()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))
