"""Time from the start of a process to its first result, cold and with JAX's compilation cache: python -m benchmarks.startup
[--quick].

To the first SFT step: `mmsearch sft` on a small mini-world that exists already, until the step's losses are in metrics.jsonl.
To the first sampled token: the shipped tiny base, an engine of the bundled sizes, a prompt of text, greedy; transformers does
the same from the same folder, and must find the same token. "Cold" is without compiled programs, but with files in the
page cache; the compilation cache is one folder, filled by a run that is not counted.
"""

from __future__ import annotations

import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import environment
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.recipes.tiny import TINY_BASE

_SETTINGS = {
    "world.num_lands": 16,
    "world.num_grpo_lands": 8,
    "world.num_sft_rows": 48,
    "world.num_grpo_rows": 8,
    "sft.batch.rows": 2,
    "sft.batch.images": 6,
    "sft.num_steps": 2,
    "run.resume": False,
}
_PROMPT = "Which city is the capital of Peru?"
_POLL_S = 0.01


def main() -> None:
    """Prints seconds and ratios."""
    options = command_line(
        "Seconds from a process's start to its first result.", "to the first token, once"
    ).parse_args()
    repeats, kinds = (1, ["token"]) if options.quick else (3, ["step", "token"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "work.json").write_text(json.dumps({"folder": TINY_BASE, "prompt": _PROMPT}))
        sample = [sys.executable, "-m", "benchmarks.first_token", str(folder / "work.json")]
        # Builds the world, fills the compilation cache and the page cache.
        warm = str(folder / "compiled")
        if "step" in kinds:
            first_step(folder / "sft", warm)
        first_line(sample, warm)
        times: dict[str, list[float]] = collections.defaultdict(list)
        tokens = set()
        peer = [
            str(environment("transformers")),
            str(Path(__file__).parent / "peers" / "transformers_first_token.py"),
            str(folder / "work.json"),
        ]
        first_line(peer, "")
        for _ in range(repeats):
            if "step" in kinds:
                times["step, cold"].append(first_step(folder / "sft", ""))
                times["step, cache"].append(first_step(folder / "sft", warm))
            for name, command, cache in (
                ("token, cold", sample, ""),
                ("token, cache", sample, warm),
                ("peer", peer, ""),
            ):
                spent, token = first_line(command, cache)
                times[name].append(spent)
                tokens.add(token)
    if len(tokens) != 1:
        raise SystemExit(f"the first tokens differ: {tokens}")
    rows = {
        f"start to first {name}": Measured(statistics.median(own), "s", "", True, (min(own), max(own)))
        for name, own in times.items()
        if name != "peer"
    }
    rows["start to first token, transformers"] = Measured(statistics.median(times["peer"]), "s", "", True)
    for kind in kinds:
        rows[f"start to first {kind}, what the cache gains"] = faster(
            times[f"{kind}, cache"], times[f"{kind}, cold"], 1.5
        )
    rows["start to first token with the cache, against transformers"] = faster(times["token, cache"], times["peer"], 1)
    report(rows, options.json)


def first_step(workdir: Path, cache: str) -> float:
    """Seconds until the first step of `mmsearch sft` is in its metrics."""
    metrics = workdir / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "mmsearch_jax.commands.main",
        "sft",
        "--workdir",
        str(workdir),
        "--compilation-cache",
        cache,
    ]
    command += [f"--config.{key}={value}" for key, value in _SETTINGS.items()]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=_clean(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (metrics.is_file() and "\n" in metrics.read_text()):
        if process.poll() is not None and not metrics.is_file():
            raise SystemExit(f"mmsearch sft ended with code {process.returncode} before its first step")
        time.sleep(_POLL_S)
    spent = time.perf_counter() - began
    if process.wait():
        raise SystemExit(f"mmsearch sft ended with code {process.returncode}")
    return spent


def first_line(command: Sequence[str], cache: str) -> tuple[float, str]:
    """Seconds until a process has printed its one line, and the line."""
    more = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} if cache else {}
    began = time.perf_counter()
    with subprocess.Popen(command, env=_clean() | more, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        spent = time.perf_counter() - began
    if process.returncode or not line:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return spent, line.strip()


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}


if __name__ == "__main__":
    main()
