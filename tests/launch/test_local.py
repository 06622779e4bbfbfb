"""The simulated pod: real processes, one of which is killed; all restart from the last checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mmsearch_jax.core import search_api
from mmsearch_jax.core.config_files import load
from mmsearch_jax.jobs.worlds import TRAINING_WORLD, prepare_world
from mmsearch_jax.settings.commands import GRPOSettings
from tests.distributed.test_commands import TINY_BASE, WORLD_FLAGS

LOCAL = Path(__file__).parents[2] / "launch" / "local.py"


def rehearse(*arguments, **more):
    return subprocess.run(
        [sys.executable, str(LOCAL), *map(str, arguments)], capture_output=True, text=True, timeout=900, **more
    )


def started(running):
    """What the launcher says up to the line with the process ids."""
    said = [running.stdout.readline()]
    while said[-1] and "process ids" not in said[-1]:
        said.append(running.stdout.readline())
    return said


@pytest.mark.slow
def test_grpo_with_a_tools_server_beside_it_goes_on_after_a_kill(tmp_path):
    settings = [
        *WORLD_FLAGS,
        f"--config.checkpoint={TINY_BASE}",
        "--config.grpo.num_steps=6",
        "--config.grpo.prompts_per_step=2",
        "--config.grpo.group_size=4",
        "--config.grpo.skip_uniform=false",
        "--config.engine.num_slots=8",
        "--config.engine.decode_rows=()",
        "--config.engine.length_buckets=()",
        "--config.run.checkpoint_every=1",
    ]
    # The world to search; the run finds it in its work directory.
    world = prepare_world(
        load(GRPOSettings, "configs/tiny_grpo.py", settings).settings, tmp_path / "run", TRAINING_WORLD
    )
    arguments = ["--heartbeat-timeout", "10", "--corpus", world / "corpus", "--", "grpo", "--workdir", tmp_path / "run"]
    running = subprocess.Popen(
        [sys.executable, str(LOCAL), *map(str, arguments), *settings], stdout=subprocess.PIPE, text=True
    )
    said = started(running)
    url = next(line.split()[-1] for line in said if "tools server at" in line)
    victim = int(said[-1].split()[-1])
    checkpoints = tmp_path / "run" / "checkpoints" / "grpo"
    deadline = time.monotonic() + 900
    while not (checkpoints / "2").is_dir():
        assert time.monotonic() < deadline and running.poll() is None, said
        time.sleep(0.2)
    with urllib.request.urlopen(url + search_api.ROUTE_METRICS, timeout=30) as metrics:
        asked = metrics.read().decode()
    os.kill(victim, signal.SIGKILL)
    rest, _ = running.communicate(timeout=1800)
    assert running.returncode == 0, rest
    assert "attempt 2" in rest and "attempt 3" not in rest and "-9" in rest
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # No step is repeated or missing.
    assert [record["step"] for record in records if "reward" in record] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "run" / "policies" / "grpo" / "config.json").is_file()
    # One server answered the launcher and both processes, and stopped with the launcher.
    counted = f'tools_requests_total{{route="{search_api.ROUTE_READY}",status="200"}} '
    (ready,) = [line.removeprefix(counted) for line in asked.splitlines() if line.startswith(counted)]
    assert float(ready) >= 3
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url + search_api.ROUTE_HEALTH, timeout=10)


def test_a_corpus_that_is_not_there_is_said_before_anything_starts(tmp_path):
    own = f"--config.checkpoint={TINY_BASE}"
    done = rehearse("--corpus", tmp_path / "none", "--", "grpo", own, "--workdir", tmp_path / "run")
    assert done.returncode == 2 and "error: the search server ended" in done.stdout and "attempt" not in done.stdout


def test_what_the_user_must_mend_is_said_once(tmp_path):
    # It begins as the check expects; only its reader sees that the rest is missing.
    (tmp_path / "rows.array_record").write_bytes(bytes.fromhex("83af70d10d884a3f") + b"x" * 100)
    own = f"--config.sft.data.sets={tmp_path}/rows.array_record"
    done = rehearse("--processes", 1, "--", "sft", "--workdir", tmp_path / "run", own)
    assert done.returncode == 2, done.stderr
    assert "process 0 says: error:" in done.stdout and "is cut short or not an ArrayRecord file" in done.stdout
    assert "attempt 2" not in done.stdout


def test_what_the_check_refuses_is_not_started(tmp_path):
    done = rehearse("--", "sft", "--workdir", tmp_path / "run", "--config.checkpoint=/nowhere", "--config.sft.steps=1")
    assert done.returncode == 2 and done.stdout == "" and not (tmp_path / "run").exists()
    assert "no checkpoint at /nowhere" in done.stderr and "did you mean" in done.stderr


def test_a_dry_run_checks_and_starts_nothing(tmp_path):
    done = rehearse("--dry-run", "--processes", 2, "--", "sft", "--workdir", tmp_path / "run")
    assert done.returncode == 0 and not (tmp_path / "run").exists(), done.stderr
    assert done.stdout.count("+ ") == 2 and "--process-id 1" in done.stdout


def test_another_command_is_refused():
    done = rehearse("--", "eval")
    assert done.returncode == 2 and "'eval' does not run" in done.stderr
