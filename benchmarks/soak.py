"""Does a long run leak host memory? python -m benchmarks.soak [--steps 2000] [--json FILE].

Runs `mmsearch sft` on a small mini-world and reads the resident memory of the process while it trains: the mean over the last
tenth of the steps against that over the second tenth. Linux only.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Measured, command_line, report

_SETTINGS = {
    "world.num_lands": 24,
    "world.num_grpo_lands": 12,
    "world.num_sft_rows": 120,
    "world.num_grpo_rows": 8,
    "sft.batch.rows": 1,
    "sft.batch.images": 3,
    "run.checkpoint_every": 200,
}


def main() -> None:
    """Trains, samples the memory, and prints its growth."""
    parser = command_line("Host memory over a long run.", "60 steps")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    steps = 60 if options.quick else options.steps
    with tempfile.TemporaryDirectory() as folder:
        samples = sample(Path(folder), steps)
    early = statistics.mean(size for step, size in samples if 0.1 <= step / steps < 0.2)
    late = statistics.mean(size for step, size in samples if step / steps >= 0.9)
    print(f"resident memory: {early / 1e6:.0f} MB in steps {steps // 10}-{steps // 5}, {late / 1e6:.0f} MB at the end")
    growth = 100 * (late / early - 1)
    report({f"host memory growth, {steps} steps": Measured(growth, "%", "under 2", growth < 2)}, options.json)


def sample(workdir: Path, steps: int) -> list[tuple[int, int]]:
    """(step, resident bytes), several times a second until the run ends."""
    settings = {**_SETTINGS, "sft.num_steps": steps}
    command = [sys.executable, "-m", "mmsearch_jax.commands.main", "sft", "--workdir", str(workdir)]
    process = subprocess.Popen(command + [f"--config.{key}={value}" for key, value in settings.items()])
    samples = []
    while process.poll() is None:
        time.sleep(0.2)
        step, size = _last_step(workdir / "metrics.jsonl"), _resident(process.pid)
        if step and size:
            samples.append((step, size))
    if process.returncode:
        raise SystemExit(f"the run ended with code {process.returncode}")
    return samples


def _last_step(metrics: Path) -> int:
    if not metrics.is_file():
        return 0
    whole = metrics.read_text(encoding="utf-8").rpartition("\n")[0]
    return json.loads(whole.splitlines()[-1])["step"] if whole else 0


def _resident(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        # It has just ended.
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
