"""The command line: help, and one-line errors with exit code 2."""

import argparse
import dataclasses
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from mmsearch_jax.commands import main as cli
from mmsearch_jax.commands.command_line import make_parser
from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.errors import MMSearchError
from mmsearch_jax.jobs import search_tools

ROOT = __file__.rsplit("/tests/", 1)[0]
COMMANDS = [
    "quickstart",
    "pretrain",
    "sft",
    "grpo",
    "eval",
    "compare",
    "ask",
    "serve",
    "serve-tools",
    "import-hf",
    "export-hf",
    "report",
    "data",
]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def mmsearch(capsys, monkeypatch):
    """Runs a command line as the console script does, without the seconds that a new Python takes."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code
        return Done(code, *capsys.readouterr())

    return run


def test_help_names_every_command_and_starts_without_jax(mmsearch):
    done = mmsearch("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    # Slow imports would make --help slow.
    slow = ("jax", "numpy", "aiohttp", "transformers", "rich", "PIL")
    code = f"import sys, mmsearch_jax.commands.main; sys.exit(any(name in sys.modules for name in {slow}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(mmsearch, command):
    done = mmsearch(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 150


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--config.eval.nam=x"], "did you mean 'eval.name'"),
        (["eval", "--config", "nowhere.py"], "no config file at nowhere.py"),
        (["eval", "--wrong"], "unknown argument '--wrong'"),
        (["report", "/nowhere-at-all"], "nothing to report in /nowhere-at-all"),
        (["serve-tools", "--corpus", "/nowhere-at-all"], "no corpus at /nowhere-at-all"),
        (["serve", "--config.checkpoint=/nowhere-at-all"], "no checkpoint at /nowhere-at-all"),
        (
            ["serve", "--config.serve.token_env=NOT_SET_AT_ALL"],
            "names the environment variable NOT_SET_AT_ALL, which is not set",
        ),
        (["serve", "--tools-url", "http://127.0.0.1:9"], "no search server at http://127.0.0.1:9"),
        (["import-hf", "/nowhere-at-all", "/tmp/x"], "no checkpoint at /nowhere-at-all"),
        (["export-hf", "/nowhere-at-all", "/tmp/x"], "no checkpoint at /nowhere-at-all"),
        (["report", ".", "--config.a=1"], "takes no config"),
        (["sft", "--workdir", "az://bucket/run"], "only gs://BUCKET/FOLDER, s3://BUCKET/FOLDER and directories"),
        (
            ["grpo", "--workdir", "s3://bucket/run", "--distributed"],
            "several processes need a shared directory or gs://",
        ),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(mmsearch, arguments, message, monkeypatch):
    monkeypatch.setattr(search_tools, "_READY_S", 0.1)
    done = mmsearch(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_checkpoint_and_a_broken_image_are_named(mmsearch, tmp_path):
    done = mmsearch("sft", "--workdir", tmp_path, "--config.checkpoint=/nowhere-at-all")
    assert (done.returncode, "no checkpoint at /nowhere-at-all" in done.stderr) == (2, True)
    picture = tmp_path / "broken.jpg"
    picture.write_bytes(b"not an image")
    done = mmsearch("ask", picture, "What is it?", "--workdir", tmp_path)
    assert (done.returncode, "is not an image" in done.stderr) == (2, True)


def test_a_port_in_use_is_named(mmsearch, tmp_path):
    (tmp_path / "pages.jsonl").write_text("")
    (tmp_path / "images.jsonl").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = mmsearch("serve-tools", "--corpus", tmp_path, "--port", taken.getsockname()[1])
    assert done.returncode == 2
    assert "port" in done.stderr
    assert done.stderr.startswith("error: ")


def test_debug_shows_the_traceback(mmsearch):
    with pytest.raises(MMSearchError):
        mmsearch("report", "/nowhere-at-all", "--debug")


def test_debug_may_stand_before_the_command_too(mmsearch):
    with pytest.raises(MMSearchError):
        mmsearch("--debug", "report", "/nowhere-at-all")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_example_in_the_help_is_a_command_line_that_parses(mmsearch, command):
    for example in cli.COMMANDS[command].examples:
        words = shlex.split(example.partition("     (")[0].replace("\\\n", " "))
        assert words[0] == "mmsearch"
        options, rest = make_parser(cli.COMMANDS).parse_known_args(words[1:])
        assert options.command in COMMANDS
        assert all(word.startswith("--config.") for word in rest)
        if rest and (tree := cli.COMMANDS[command].settings) is not None:
            load(tree(), options.config or f"configs/{cli.COMMANDS[command].config}", rest)


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_profile_says_how_many_steps_to_trace(command, tmp_path, capsys):
    assert cli.main([command, "--profile", "2", "--workdir", str(tmp_path), "--print-config"]) == 0
    assert "run.profile_steps = 2  [command line]" in capsys.readouterr().out


def test_programs_are_kept_where_compilation_cache_says(tmp_path):
    # Everything up to the command's own work, in whose place JAX compiles a small program.
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    code = (
        "import dataclasses, sys; from mmsearch_jax.commands import main\n"
        "def compile(options): import jax; jax.jit(lambda x: x + 1)(1.0)\n"
        "main.COMMANDS['ask'] = dataclasses.replace(main.COMMANDS['ask'], run=compile)\n"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    arguments = ["ask", "plain.png", "who?", f"--config.checkpoint={ROOT}/assets/tiny-base"]
    arguments += ["--compilation-cache", str(tmp_path / "new" / "cache")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert any("jit__lambda" in path.name for path in (tmp_path / "new" / "cache").iterdir())


def test_a_compilation_cache_that_cannot_be_made_is_named(mmsearch, tmp_path):
    (tmp_path / "file").touch()
    policy = f"--config.checkpoint={ROOT}/assets/tiny-base"
    done = mmsearch("ask", tmp_path / "file", "who?", policy, "--compilation-cache", tmp_path / "file" / "cache")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and str(tmp_path / "file") in done.stderr


def test_an_interrupt_says_from_where_the_same_command_resumes(mmsearch, tmp_path, monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    def said(name, *more):
        stopped = dataclasses.replace(cli.COMMANDS[name], run=interrupt)
        monkeypatch.setitem(cli.COMMANDS, name, stopped)
        done = mmsearch(name, *more, "--workdir", tmp_path)
        assert done.returncode == 130
        return done.stderr.strip()

    assert said("quickstart") == "interrupted: the same command resumes from its start (there is no checkpoint yet)"
    for step in ("sft/128", "sft/132", "grpo/8", "grpo/16.orbax-checkpoint-tmp", "broken/x"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    for age, step in enumerate(("grpo/8", "sft/132")):
        os.utime(tmp_path / "checkpoints" / step, (10**9 - age, 10**9 - age))
    assert said("quickstart") == "interrupted: the same command resumes from step 132 of sft, step 8 of grpo"
    assert said("eval").endswith("resumes from the last logged answer")
    assert (
        said("ask", f"{ROOT}/docs/report.png", "what?", f"--config.checkpoint={ROOT}/assets/tiny-base") == "interrupted"
    )


def parsers_below(parser):
    """A parser and those of all its commands."""
    yield parser
    for action in parser._actions:
        for inner in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            yield from parsers_below(inner)


def test_no_command_takes_an_abbreviated_option(mmsearch, tmp_path):
    found = list(parsers_below(make_parser(cli.COMMANDS)))
    assert {parser.prog.split()[1] for parser in found[1:]} == set(cli.COMMANDS)
    assert not [parser.prog for parser in found if parser.allow_abbrev]
    done = mmsearch("sft", "--workd", tmp_path / "run", "--conf=configs/tiny_sft.py")
    assert done.returncode == 2 and done.stderr == "error: unknown argument '--workd': see mmsearch sft --help\n"
    assert list(tmp_path.iterdir()) == []


def test_no_other_program_makes_a_parser_of_its_own():
    folders = ("mmsearch_jax", "tools_server", "launch", "benchmarks")
    files = [path for folder in folders for path in Path(ROOT, folder).rglob("*.py")]
    with_own = [path.name for path in files if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")]
    assert len(files) > 200 and not with_own
