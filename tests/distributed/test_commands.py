"""The training commands, each in two real processes, from the files on disk to the saved policy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import cpu_devices
from tests.distributed.test_learners_on_meshes import free_port

TINY_BASE = Path(__file__).parents[2] / "assets" / "tiny-base"
WORLD = {"num_lands": 16, "num_sft_rows": 24, "num_grpo_lands": 8, "num_grpo_rows": 12}
WORLD_FLAGS = [f"--config.world.{key}={value}" for key, value in WORLD.items()]


def run_in_two_processes(command, workdir, *flags):
    coordinator = f"127.0.0.1:{free_port()}"
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mmsearch_jax.commands.main",
                command,
                "--workdir",
                str(workdir),
                *WORLD_FLAGS,
                *flags,
                "--coordinator",
                coordinator,
                "--num-processes",
                "2",
                "--process-id",
                str(number),
            ],
            env=cpu_devices.environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(text[-3000:] for text in said)
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_sft_and_then_grpo_in_two_processes(tmp_path):
    sft = run_in_two_processes(
        "sft",
        tmp_path / "sft",
        f"--config.checkpoint={TINY_BASE}",
        "--config.sft.num_steps=2",
        "--config.sft.batch.rows=4",
        "--config.sft.batch.images=10",
        "--config.run.checkpoint_every=1",
    )
    assert sum("loss" in record for record in sft) == 2
    grpo = run_in_two_processes(
        "grpo",
        tmp_path / "grpo",
        f"--config.checkpoint={tmp_path}/sft/policies/sft",
        "--config.grpo.num_steps=2",
        "--config.grpo.prompts_per_step=2",
        "--config.grpo.group_size=4",
        "--config.grpo.skip_uniform=false",
        "--config.grpo.eval_every=1",
        "--config.grpo.eval_num_rows=3",
        "--config.engine.num_slots=8",
        "--config.engine.decode_rows=()",
        "--config.engine.length_buckets=()",
        "--config.run.checkpoint_every=1",
    )
    assert [record["step"] for record in grpo if "reward" in record] == [1, 2]
    policies = tmp_path / "grpo" / "policies"
    assert (policies / "grpo" / "config.json").is_file()
    measured = {record["step"]: record["eval_accuracy"] for record in grpo if "eval_accuracy" in record}
    assert sorted(measured) == [0, 1, 2]
    best = json.loads((policies / "best" / "best.json").read_text())
    assert measured[best["step"]] == best["eval_accuracy"] == max(measured.values())
    assert (policies / "best" / "config.json").is_file()
