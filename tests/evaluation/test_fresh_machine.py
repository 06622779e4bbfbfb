"""The bundled config without data and search server: our engine runs on the mini-world."""

import json

import pytest

from mmsearch_jax.commands import main as cli
from mmsearch_jax.evaluation.samples import read_samples


@pytest.mark.slow
def test_the_bundled_config_runs_the_mini_world_and_names_the_others(tmp_path, capsys):
    settings = {
        "data": tmp_path / "nothing",
        "dtype": "float32",
        "world.num_eval_rows": 6,
        "engine.num_slots": 8,
        "engine.decode_rows": "()",
        "eval.mode": "rag",
    }
    command = ["eval", "--config", "configs/eval/deepmmsearch.py", "--workdir", str(tmp_path)]
    assert cli.main([*command, *(f"--config.{key}={value}" for key, value in settings.items())]) == 0
    suite = json.loads((tmp_path / "eval" / "policy" / "suite.json").read_text())
    assert suite["summaries"] == ["policy/miniworld"] and len(suite["missing"]) == 10
    assert "huggingface.co/datasets/CaraJ/MMSearch" in suite["missing"]["mmsearch"]
    assert sorted(path.name for path in (tmp_path / "eval" / "policy").iterdir()) == ["miniworld", "suite.json"]
    samples = read_samples(tmp_path / "eval" / "policy" / "miniworld")
    assert len(samples) == 6 and all(sample["calls"] == 2 and sample["trajectory"]["token_ids"] for sample in samples)
    assert "needs" not in suite["missing"]["okvqa"] and "missing" in capsys.readouterr().out
