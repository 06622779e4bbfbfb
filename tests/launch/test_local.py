"""The pod rehearsal: real processes, one of them killed, all started again from the last checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.distributed.test_commands import TINY_BASE, WORLD_FLAGS

LOCAL = Path(__file__).parents[2] / "launch" / "local.py"


def rehearse(*arguments, **more):
    return subprocess.run(
        [sys.executable, str(LOCAL), *map(str, arguments)], capture_output=True, text=True, timeout=900, **more
    )


@pytest.mark.slow
def test_a_killed_process_stops_the_others_and_the_run_resumes(tmp_path):
    command = [
        "sft", "--workdir", tmp_path / "run", *WORLD_FLAGS, f"--config.checkpoint={TINY_BASE}", "--config.sft.num_steps=400",
        "--config.sft.data.lanes=2", "--config.sft.batch.rows=2", "--config.sft.batch.images=6",
        "--config.run.checkpoint_every=20",
    ]  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, str(LOCAL), "--heartbeat-timeout", "10", "--", *map(str, command)], stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert running.stdout is not None
    victim = int([running.stdout.readline() for _ in range(2)][1].split()[-1])
    checkpoints = tmp_path / "run" / "checkpoints" / "sft"
    deadline = time.monotonic() + 600
    while not (checkpoints / "40").is_dir():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.2)
    os.kill(victim, signal.SIGKILL)
    said, _ = running.communicate(timeout=900)
    assert running.returncode == 0, said
    assert "attempt 2" in said and "attempt 3" not in said and "-9" in said
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "loss" in record]
    # Not one step twice, and none left out.
    assert steps == list(range(1, 401))


def test_what_the_user_must_mend_is_said_once(tmp_path):
    done = rehearse("--processes", 1, "--", "sft", "--workdir", tmp_path / "run", "--config.checkpoint=/nowhere")
    assert done.returncode == 2
    assert "process 0 says: error:" in done.stdout and "/nowhere" in done.stdout
    assert "attempt 2" not in done.stdout


def test_another_command_is_refused():
    done = rehearse("--", "eval")
    assert done.returncode == 2 and "'eval' does not train" in done.stderr
