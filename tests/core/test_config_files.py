"""Configs: overrides, and what a mistake in one says."""

import json

import pytest

from mmsearch_jax.core.config_files import as_arguments, load_config, save_config
from mmsearch_jax.core.errors import ConfigError

CONFIGS = [
    "tiny_pretrain.py",
    "tiny_sft.py",
    "tiny_grpo.py",
    "quickstart.py",
    "eval/miniworld.py",
    "eval/deepmmsearch.py",
]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_bundled_config_loads_and_can_be_saved(name, tmp_path):
    config = load_config(f"configs/{name}")
    save_config(config, tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == config.seed


def test_overrides_take_the_old_values_kind():
    config = load_config(
        "configs/tiny_grpo.py",
        [
            "--config.grpo.loss.kl_coef=1",
            "--config.checkpoint=some/dir",
            "--config.grpo.normalise_std=true",
            "--config.engine.decode_rows=(4, 8)",
        ],
    )
    assert config.grpo.loss.kl_coef == 1.0
    assert isinstance(config.grpo.loss.kl_coef, float)
    assert config.checkpoint == "some/dir"
    assert config.grpo.normalise_std is True
    assert as_arguments(config.engine)["decode_rows"] == (4, 8)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.grpo.group_sise=4", r"unknown config key 'grpo.group_sise': did you mean 'grpo.group_size'\?"),
        ("--config.grpo.group_size=many", "'grpo.group_size' takes a whole number, got 'many'"),
        ("--config.grpo.loss=3", "'grpo.loss' is a section: set one of grpo.loss.aggregation"),
        ("--config.grpo", "write --config.KEY=VALUE"),
    ],
)
def test_a_wrong_override_says_what_to_do(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("configs/tiny_grpo.py", [override])


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file at .*nowhere.py"):
        load_config(tmp_path / "nowhere.py")
    broken = tmp_path / "a" / "broken.py"
    broken.parent.mkdir()
    broken.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        load_config(broken)


def test_a_default_argument_is_for_configs_that_take_one_and_yields_to_the_paths_own():
    assert load_config("configs/sft_qwen2_5_vl_7b.py", (), "v5p:2x2x4").mesh.data == 4
    assert load_config("configs/sft_qwen2_5_vl_7b.py:v5p:2x2x2", (), "v5p:2x2x4").mesh.data == 2
    assert load_config("configs/tiny_sft.py", (), "v5p:2x2x4").mesh.data == 1
