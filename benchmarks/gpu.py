"""The compute-bound benchmarks on one GPU at the shapes of the 3B or 7B, in ten minutes: python -m benchmarks.gpu [--model 7b].

    python -m benchmarks.gpu --json gpu.json                       the 7B
    python -m benchmarks.gpu --torch PYTHON --json gpu.json        with torch from another interpreter
    python -m benchmarks.gpu --only sft_mfu --json gpu.json        only some parts; rows of the others stay in the file
    python -m benchmarks.gpu --model small --quick                 the same parts on a CPU, to check that they run

First the card's own limits (bf16 matrix products, bandwidth), then SFT step, GRPO step, log-probs, prefill, decoding, vision
tower and rollouts (with a scripted policy): bf16, random weights. Each part has its own process and time limit, and runs
beside transformers + torch (sdpa with its flash kernels) if an interpreter has them. The figures of a part are written to the
JSON when it ends; a part that takes too long or fails is named, and the others still run. Rates are also given as shares of
the card's limits.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.table import Measured, command_line, report


class Part(NamedTuple):
    """A benchmark, its time limit in seconds and its arguments; `peer`: it has a peer; `sizes`: it takes --model."""

    module: str
    seconds: int
    arguments: Sequence[str] = ()
    peer: bool = True
    sizes: bool = True


PARTS = (
    Part("card", 30, peer=False, sizes=False),
    Part("sft_mfu", 110),
    Part("sft_mfu", 110, ("--objective", "grpo")),
    Part("logprobs", 60),
    Part("prefill", 60),
    Part("decode", 95),
    Part("vision", 45),
    Part("decode_limit", 55, peer=False),
    Part("rollout", 35, ("--quick",), peer=False, sizes=False),
)
_PRODUCTS = "card, bf16 matrix products"


def main() -> None:
    """Runs the parts and prints one table."""
    parser = command_line("The compute-bound benchmarks on a GPU.", "short forms of the small model, on a CPU")
    parser.add_argument("--model", choices=("small", "3b", "7b"), help="default: 7b, with --quick small")
    parser.add_argument("--torch", type=Path, metavar="PYTHON", help="interpreter with torch, transformers and peft")
    names = list(dict.fromkeys(part.module for part in PARTS))
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    options = parser.parse_args()
    # A signal that ends this process must also end the running part.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    size = options.model or ("small" if options.quick else "7b")
    python = options.torch or (Path(sys.executable) if importlib.util.find_spec("torch") else None)
    if python is None:
        print("torch is not installed here, and --torch names no interpreter that has it: only our side is measured")
    # Memory is allocated on demand, so that two successive processes do not collide.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if python is not None:
        environment["MMSEARCH_PEER_TRANSFORMERS"] = str(python)
    # On a CPU only the run itself is checked, not its times.
    patience = 4 if size == "small" else 1
    rows = read(options.json) if options.only and options.json and options.json.is_file() else {}
    parts = [part for part in PARTS if not options.only or part.module in options.only]
    missing, began, seconds = [], time.monotonic(), 0.0
    for part in parts:
        command = [sys.executable, "-m", f"benchmarks.{part.module}", *part.arguments]
        command += ["--model", size] * part.sizes + ["--alone"] * (part.peer and python is None)
        command += ["--quick"] * (options.quick and "--quick" not in command)
        print(f"\n{' '.join(command[1:])}", flush=True)
        # A part may use the time that earlier parts did not need.
        seconds += patience * part.seconds
        found = run(command, environment, began + seconds - time.monotonic())
        if found is None:
            missing.append(" ".join((part.module, *part.arguments)))
            continue
        rows |= found
        if part.module != "card" and _PRODUCTS in rows:
            rows |= shares(found, rows[_PRODUCTS].value)
        report(rows, options.json)
    print(f"{time.monotonic() - began:.0f} s")
    if missing:
        sys.exit(f"not measured (it failed, or took too long): {', '.join(missing)}")


def run(command: list[str], environment: dict[str, str], seconds: float) -> dict[str, Measured] | None:
    """The rows of a benchmark; None if it failed or exceeded its time limit (it is then ended, with its children)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        process = subprocess.Popen([*command, "--json", str(file)], env=environment, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"ended after {seconds:.0f} s", flush=True)
        finally:
            if process.poll() is None:
                # Peers are children of the benchmark.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            return None
        return read(file)


def read(file: Path) -> dict[str, Measured]:
    """The rows that a benchmark wrote."""
    return {name: Measured(**row) for name, row in json.loads(file.read_text(encoding="utf-8")).items()}


def shares(rows: dict[str, Measured], limit: float) -> dict[str, Measured]:
    """For rows in TFLOP/s: their share of the card's measured rate."""
    return {
        f"{name}, of the card's products": Measured(100 * row.value / limit, "%", "", True)
        for name, row in rows.items()
        if row.unit == "TFLOP/s"
    }


if __name__ == "__main__":
    main()
