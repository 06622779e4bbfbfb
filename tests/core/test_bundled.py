"""Bundled configs and assets: found from a clone, from any folder, and in a wheel's layout."""

import shutil
import subprocess
import sys

import pytest

from mmsearch_jax.core.bundled import REPOSITORY, bundled
from mmsearch_jax.core.config_files import run_config_file
from mmsearch_jax.core.errors import ConfigError


def test_a_clone_keeps_its_files_at_its_top():
    assert REPOSITORY is not None and (REPOSITORY / "pyproject.toml").is_file()
    assert bundled("configs/tiny_sft.py") == REPOSITORY / "configs" / "tiny_sft.py"
    assert bundled("assets/tiny-base/config.json").is_file()


def test_a_bundled_config_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_config_file("configs/sft_qwen2_5_vl_7b.py:v5p:2x2x2").mesh.data == 2


def test_a_config_of_the_users_own_wins_over_a_bundled_one_of_its_name(tmp_path, monkeypatch):
    own = tmp_path / "configs" / "tiny_sft.py"
    own.parent.mkdir()
    own.write_text("import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({'mine': 1})\n")
    monkeypatch.chdir(tmp_path)
    assert run_config_file("configs/tiny_sft.py").mine == 1


def test_a_config_that_is_nowhere_is_told_with_those_that_are_bundled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no config file at configs/sft.py: .*configs/tiny_sft.py"):
        run_config_file("configs/sft.py")
    with pytest.raises(ConfigError, match="no config file at tiny_sft.py"):
        run_config_file("tiny_sft.py")


def test_an_installed_package_takes_the_files_inside_it(tmp_path):
    packages = tmp_path / "site-packages"
    for part in ("core", "settings", "recipes"):
        shutil.copytree(bundled(f"mmsearch_jax/{part}"), packages / "mmsearch_jax" / part)
    shutil.copy(bundled("mmsearch_jax/__init__.py"), packages / "mmsearch_jax")
    shutil.copytree(bundled("configs"), packages / "mmsearch_jax" / "configs")
    program = (
        "from mmsearch_jax.core.bundled import REPOSITORY, bundled\n"
        "from mmsearch_jax.core.config_files import run_config_file\n"
        "assert REPOSITORY is None\n"
        "print(bundled('configs'), run_config_file('configs/tiny_sft.py').checkpoint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(packages), "PATH": ""},
    )
    assert done.stdout.split() == [
        str(packages / "mmsearch_jax" / "configs"),
        str(packages / "mmsearch_jax" / "assets" / "tiny-base"),
    ], done.stderr
