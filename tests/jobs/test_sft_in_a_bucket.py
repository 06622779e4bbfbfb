"""`mmsearch sft` whose work directory is in a bucket, killed in the middle, against a run on a local disk."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import pytest

from mmsearch_jax.core import buckets
from mmsearch_jax.core.buckets import open_bucket
from mmsearch_jax.core.staging import StagedDirectory
from tests.bucket_servers import BUCKET, bucket_server

_STEPS = 12
_SETTINGS = {
    "world.num_lands": 16,
    "world.num_grpo_lands": 8,
    "world.num_sft_rows": 24,
    "world.num_grpo_rows": 8,
    "sft.batch.rows": 2,
    "sft.batch.images": 6,
    "sft.data.num_workers": 0,
    "sft.num_steps": _STEPS,
    "run.checkpoint_every": 1,
}


class Running(NamedTuple):
    """A command. It writes to a file: nobody reads the pipe of one process while the test waits for another, and a full pipe
    stops its writer."""

    process: subprocess.Popen
    output: Any

    def said(self):
        self.output.seek(0)
        return self.output.read()


def mmsearch(command, workdir, *more, **settings):
    given = [*more, *(f"--config.{key}={value}" for key, value in settings.items())]
    output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (the process writes to it)
    process = subprocess.Popen(
        [sys.executable, "-m", "mmsearch_jax.commands.main", command, "--workdir", str(workdir), *given],
        env=dict(os.environ),
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    return Running(process, output)


def finished(running):
    running.process.wait()
    said = running.said()
    assert running.process.returncode == 0, said[-3000:]
    return said


def losses(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").open(encoding="utf-8")]
    return [(record["step"], record["loss"]) for record in records]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    finished(mmsearch("sft", workdir, **_SETTINGS))
    return workdir


def _steps_in(bucket, scheme):
    last = "commit_success.txt" if scheme == "gs" else "_CHECKPOINT_METADATA"
    parts = [name.split("/") for name in bucket.list() if name.startswith("checkpoints/sft/")]
    return {int(part[2]) for part in parts if len(part) == 4 and part[3] == last}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_killed_run_in_a_bucket_ends_like_one_on_a_local_disk(whole, scheme, monkeypatch):
    with bucket_server(scheme) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        buckets._google_files.cache_clear()
        rows = f"{scheme}://{BUCKET}/data/rows.array_record"
        data = open_bucket(f"{scheme}://{BUCKET}/data")
        data.upload(whole / "worlds" / "train" / "conversations" / "rows.array_record", "rows.array_record")
        address = f"{scheme}://{BUCKET}/run"
        # A pause after each step would be simpler than a race, but the killed command is the user's own.
        settings = {**_SETTINGS, "sft.data.sets": f"('{rows}',)"}
        running, bucket, until = mmsearch("sft", address, **settings), open_bucket(address), time.monotonic() + 240
        while not _steps_in(bucket, scheme):
            assert running.process.poll() is None and time.monotonic() < until, running.said()[-3000:]
            time.sleep(0.05)
        running.process.kill()
        running.process.wait()
        assert 0 < max(_steps_in(bucket, scheme)) < _STEPS
        assert f"{address}/policies/sft" in finished(mmsearch("sft", address, **settings))
        assert bucket.read("run.lock") is None
        with StagedDirectory(address) as resumed:
            assert losses(resumed.path) == losses(whole)
            weights = "policies/sft/model.safetensors"
            assert (resumed.path / weights).read_bytes() == (whole / weights).read_bytes()
    buckets._google_files.cache_clear()


def two_processes(workdir):
    """Starts both; the settings of one process, and as many parts of a batch as there are processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        joined = (
            "--coordinator",
            f"127.0.0.1:{free.getsockname()[1]}",
            "--num-processes",
            "2",
            "--heartbeat-timeout",
            "20",
        )
    return [
        mmsearch("sft", workdir, *joined, "--process-id", str(number), **_SETTINGS, **{"sft.data.lanes": 2})
        for number in range(2)
    ]


@pytest.mark.slow
def test_two_processes_in_a_bucket_of_which_one_is_killed_end_like_two_on_a_local_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for process in two_processes(tmp_path):
        finished(process)
    with bucket_server("gs") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        buckets._google_files.cache_clear()
        address = f"gs://{BUCKET}/two"
        both, bucket = two_processes(address), open_bucket(address)
        until = time.monotonic() + 600
        while not _steps_in(bucket, "gs"):
            alive = all(each.process.poll() is None for each in both)
            assert alive and time.monotonic() < until, both[0].said()[-3000:]
            time.sleep(0.05)
        both[1].process.kill()
        # The other one stops by itself.
        for each in both:
            each.process.wait()
        assert both[0].process.returncode != 0
        assert 0 < max(_steps_in(bucket, "gs")) < _STEPS
        for process in two_processes(address):
            finished(process)
        assert bucket.read("run.lock") is None
        with StagedDirectory(address) as resumed:
            assert losses(resumed.path) == losses(tmp_path)
            weights = "policies/sft/model.safetensors"
            assert (resumed.path / weights).read_bytes() == (tmp_path / weights).read_bytes()
    buckets._google_files.cache_clear()
