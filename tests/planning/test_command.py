"""`mmsearch plan` by the command line: one line for a mistake, tables and JSON for a plan (GPUs: no libtpu is needed)."""

import json
import os
import subprocess
import sys

import pytest

SMALL = (
    "--config.sft.batch.rows=2", "--config.sft.batch.images=2", "--config.sft.batch.length=64",
    "--config.sft.batch.patches=64",
)  # fmt: skip


def plan(*arguments, config="configs/tiny_sft.py"):
    """Runs the command in a process of its own, as it must set up JAX before JAX starts."""
    command = [sys.executable, "-m", "mmsearch_jax.cli", "plan", "--config", config, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "COLUMNS": "160"}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v5p:3x3"], "no slice 'v5p:3x3' can be ordered: the nearest is"),
        (["--topology", "h100:4", "--config.mesh.fsdp=3"], "mesh data=1, fsdp=3, tensor=1, sequence=1 needs 3 devices, there are 4"),
        (["--topology", "h100:4", "--programs", "grpo"], "the config has no section 'grpo'"),
        (["--topology", "h100:4", "--programs", "pretrain"], "no program 'pretrain': known are sft, grpo, prefill"),
        (["--topology", "h100:3"], "sft.batch.rows is 8, but the mesh splits it 3 ways"),
        (["--topology", "h100:4", "--size", "8b"], "no model size '8b'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(arguments, message):
    done = plan(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr and "Traceback" not in done.stderr


def test_a_config_without_a_stage_is_refused():
    done = plan("--topology", "h100:4", config="configs/tiny_pretrain.py")
    assert done.returncode == 2 and "neither 'sft' nor 'grpo'" in done.stderr


def test_a_plan_is_printed_and_written(tmp_path):
    done = plan("--topology", "h100:2", "--json", str(tmp_path / "plan.json"), *SMALL)
    assert done.returncode == 0, done.stderr
    for words in ("HBM per device on h100:2", "(compiled)", "counted", "estimate", "samples/day", "CPU devices"):
        assert words in done.stdout
    (made,) = json.loads((tmp_path / "plan.json").read_text())["plans"]
    assert made["program"] == "sft update" and made["fits"] and made["mesh"]["fsdp"] == 2
    assert made["compiled_for"] == "CPU devices instead of GPUs"
    assert made["memory"]["arguments"] == pytest.approx(made["memory"]["arguments_by_hand"], rel=0.02)
    assert made["unknown"] == [] and made["collectives"]
    assert made["estimate"]["seconds"] > 0 and 0 < made["estimate"]["mfu"] < 1
