"""Does a killed SFT run end like an uninterrupted one? python -m benchmarks.kill_resume [--kills 20] [--steps 12]

Runs `mmsearch sft` on a small mini-world with a checkpoint at every step, kills it with SIGKILL at random moments (compilation,
a step, a checkpoint write), starts it again each time, and compares losses and final weights with those of an uninterrupted
run. All runs share one compilation cache.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmsearch_jax.core.command_line import Parser

_SETTINGS = {
    "world.num_lands": 16,
    "world.num_grpo_lands": 8,
    "world.num_sft_rows": 48,
    "world.num_grpo_rows": 8,
    "sft.batch.rows": 2,
    "sft.batch.images": 6,
    "run.checkpoint_every": 1,
}


def main() -> None:
    """Runs, kills, compares, and prints the result; exits with code 1 if anything differs."""
    parser = Parser(description="SIGKILL at random moments against an unbroken run.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = compare(Path(folder), options.kills, options.steps, options.seed)
    print(json.dumps(report, indent=2))
    sys.exit(not (report["equal_losses"] and report["equal_weights"]))


def compare(folder: Path, kills: int, steps: int, seed: int) -> dict[str, object]:
    """The kills (seconds into a run, steps in its checkpoints), and whether all results are equal."""
    began = time.monotonic()
    _finish(_start(folder / "whole", folder, steps))
    duration = time.monotonic() - began
    # The world and its conversations are not tested here.
    shutil.copytree(folder / "whole" / "worlds", folder / "killed" / "worlds")
    rng, moments = random.Random(seed), []
    while len(moments) < kills:
        process = _start(folder / "killed", folder, steps)
        delay = rng.uniform(0.2, 1.1) * duration
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            moments.append({"seconds": round(delay, 1), "steps_saved": _steps_saved(folder / "killed")})
            continue
        if process.returncode:
            _finish(process)
        # The run has ended: the remaining kills need a new run.
        shutil.rmtree(folder / "killed" / "checkpoints")
        (folder / "killed" / "metrics.jsonl").unlink()
    _finish(_start(folder / "killed", folder, steps))
    return {
        "kills": moments,
        "equal_losses": _losses(folder / "whole") == _losses(folder / "killed"),
        "equal_weights": _weights(folder / "whole") == _weights(folder / "killed"),
    }


def _start(workdir: Path, folder: Path, steps: int) -> subprocess.Popen[bytes]:
    settings = {**_SETTINGS, "sft.num_steps": steps}
    workdir.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mmsearch_jax.commands.main",
            "sft",
            "--workdir",
            str(workdir),
            *(f"--config.{key}={value}" for key, value in settings.items()),
        ],
        env=environment,
        stdout=(workdir / "log.txt").open("ab"),
        stderr=subprocess.STDOUT,
    )


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise SystemExit(f"`{' '.join(map(str, process.args[2:]))}` ended with code {process.returncode}")  # type: ignore


def _steps_saved(workdir: Path) -> int:
    found = [int(path.name) for path in (workdir / "checkpoints" / "sft").glob("*") if path.name.isdigit()]
    return max(found, default=0)


def _losses(workdir: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").open(encoding="utf-8")]
    return [(record["step"], record["loss"]) for record in records]


def _weights(workdir: Path) -> bytes:
    return (workdir / "policies" / "sft" / "model.safetensors").read_bytes()


if __name__ == "__main__":
    main()
