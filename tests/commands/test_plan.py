"""`mmsearch plan` from the command line: one line per mistake, tables and JSON for a plan (of GPUs, without libtpu)."""

import json
import os
import subprocess
import sys

import pytest

from mmsearch_jax.commands import main as cli
from mmsearch_jax.commands.plan import QUIET
from mmsearch_jax.planning.devices import ENVIRONMENT

SMALL = (
    "--config.sft.batch.rows=2",
    "--config.sft.batch.images=2",
    "--config.sft.batch.length=64",
    "--config.sft.batch.patches=64",
)


def plan(*arguments, config="configs/tiny_sft.py"):
    """Runs the command in its own process, because it must configure JAX before JAX starts."""
    command = [sys.executable, "-m", "mmsearch_jax.commands.main", "plan", "--config", config, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "COLUMNS": "160"}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v5p:3x3"], "topology 'v5p:3x3' cannot be ordered: the nearest is"),
        (["--topology", "l40s:16"], "the rate of the network between its machines is unknown; plan one of them"),
        (["--topology", "h100:4", "--programs", "grpo"], "the config has no section 'grpo'"),
        (["--topology", "h100:4", "--programs", "pretrain"], "no program 'pretrain': known are sft, grpo, prefill"),
        (["--topology", "h100:4", "--size", "8b"], "no model size '8b'"),
        (["--topology", "h100:4", "--config", "configs/tiny_pretrain.py"], "neither 'sft' nor 'grpo'"),
        (["--topology", "h100:4", "--config.mesh.fsdp=3"], "fsdp=3, tensor=1, sequence=1 needs 3 devices, there are 4"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(arguments, message, monkeypatch, capsys):
    for name in ("JAX_PLATFORMS", *ENVIRONMENT, *QUIET):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that the command's changes are undone
    assert cli.main(["plan", "--config", "configs/tiny_sft.py", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_is_printed_and_written(tmp_path):
    done = plan("--topology", "h100:2", "--price", "2.5", "--json", str(tmp_path / "plan.json"), *SMALL)
    assert done.returncode == 0, done.stderr
    for words in ("HBM per device on h100:2", "(compiled)", "counted", "estimate", "samples/day", "CPU devices"):
        assert words in done.stdout
    written = json.loads((tmp_path / "plan.json").read_text())
    (made,), (stage,) = written["plans"], written["stages"]
    assert made["program"] == "sft update" and made["fits"] and made["mesh"]["fsdp"] == 2
    assert made["compiled_for"] == "CPU devices instead of GPUs"
    assert made["memory"]["arguments"] == pytest.approx(made["memory"]["arguments_by_hand"], rel=0.02)
    assert made["unknown"] == [] and made["collectives"]
    assert stage["num_steps"] == 132 and stage["hours"] == pytest.approx(132 * stage["learn_seconds"] / 3600)
    assert stage["dollars"] == pytest.approx(2.5 * 2 * stage["hours"]) and "at 2.5 a device and hour" in done.stdout
    assert made["estimate"]["seconds"] > 0 and 0 < made["estimate"]["mfu"] < 1


@pytest.mark.slow
def test_a_search_prints_settings_to_paste_the_fastest_first(tmp_path):
    done = plan("--topology", "h100:2", "--search", "--best", "2", "--json", str(tmp_path / "plan.json"), *SMALL)
    assert done.returncode == 0, done.stderr
    assert "compiling the 2 that should be fastest" in done.stdout and "The best settings on h100:2" in done.stdout
    best = json.loads((tmp_path / "plan.json").read_text())["best"]
    assert best[0]["tokens_per_second_per_chip"] >= best[1]["tokens_per_second_per_chip"] > 0
    for key, value in best[0]["overrides"].items():
        assert f"--config.{key}={value}" in done.stdout
