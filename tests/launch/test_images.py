"""The images: hadolint, paths that exist and are not ignored, extras that exist, no root, no key; the first process."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
FILES = sorted(LAUNCH.glob("Dockerfile.*"))


def instructions(file):
    text = re.sub(r"\\\n", " ", file.read_text())
    return [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]


def copied(file):
    for name, rest in instructions(file):
        if name == "COPY":
            yield from shlex.split(rest)[:-1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say(file):
    done = subprocess.run([str(Path(sys.executable).parent / "hadolint"), str(file)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_the_context_lets_it_through(file):
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    paths = list(copied(file))
    assert {"mmsearch_jax", "tools_server", "configs"} <= set(paths)
    for path in paths:
        assert (ROOT / path).exists(), path
        assert any(path == known or path.startswith(known + "/") or known.startswith(path) for known in let_through), (
            path
        )


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix != ".tools"], ids=lambda file: file.name)
def test_a_trainers_image_holds_the_files_that_its_commands_need(file, tmp_path):
    app = tmp_path / "app"
    app.mkdir()
    for path in copied(file):
        if "/" not in path:
            (app / path).symlink_to(ROOT / path)
    program = (
        "from mmsearch_jax.core.config_files import run_config_file\n"
        "from mmsearch_jax.miniworld.real import RealWorld\n"
        "assert RealWorld().entities\n"
        "print(run_config_file('configs/sft_qwen2_5_vl_7b.py:v5p:2x2x2').mesh.data)\n"
        "print(run_config_file('configs/tiny_sft.py').checkpoint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(app)},
    )
    assert done.stdout.split() == ["2", str(app / "assets" / "tiny-base")], done.stderr
    assert (app / "assets" / "tiny-base" / "model.safetensors").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_installed_is_pinned_and_comes_from_extras_that_exist(file):
    text = " ".join(rest for name, rest in instructions(file) if name == "RUN")
    assert "--constraint .ci/constraints-py312.txt" in text
    extras = re.search(r"requirements\.py (.*?) >", text)
    assert extras is not None
    words = extras.group(1).replace('"$EXTRA"', "cuda13").split()
    printed = subprocess.run([sys.executable, str(LAUNCH / "requirements.py"), *words], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    wanted = printed.stdout.splitlines()
    assert any(line.startswith("jax") for line in wanted) == ("tools" not in file.name)
    assert "aiohttp" in wanted


def test_an_extra_that_is_not_there_is_named():
    done = subprocess.run([sys.executable, str(LAUNCH / "requirements.py"), "tpus"], capture_output=True, text=True)
    assert done.returncode == 1 and "no extra 'tpus'" in done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_image_runs_as_a_user_without_rights_and_holds_no_key(file):
    users = [rest for name, rest in instructions(file) if name == "USER"]
    assert users and users[-1].isdecimal() and int(users[-1]) >= 1000
    assert not re.search(r"(KEY|TOKEN|SECRET|PASSWORD)\s*=", file.read_text())
    assert "**/*.env" in (ROOT / ".dockerignore").read_text().splitlines()


def test_a_container_takes_the_environment_and_hands_its_process_over(tmp_path):
    program = tmp_path / "mmsearch"
    program.write_text('#!/usr/bin/env bash\nprintf "<%s>" "$@"; echo " $LIBTPU_INIT_ARGS $$"\n')
    program.chmod(0o755)
    started = subprocess.Popen(
        ["bash", str(LAUNCH / "container.sh"), "sft", "--workdir", "/mnt/a b"],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "MMSEARCH_PLATFORM": "tpu",
            "LIBTPU_INIT_ARGS": "--mine",
        },
    )
    said, _ = started.communicate(timeout=30)
    assert said.startswith("<sft><--workdir></mnt/a b> --xla_tpu_enable_async_collective_fusion=true")
    # The trainer replaces the script's process, so it gets the signals.
    assert said.split()[-2:] == ["--mine", str(started.pid)]
    done = subprocess.run(["bash", str(LAUNCH / "container.sh")], capture_output=True, text=True)
    assert done.returncode == 2 and "no training command" in done.stderr
