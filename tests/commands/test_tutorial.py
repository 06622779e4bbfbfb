"""docs/tutorial.md: its commands as they are written."""

import contextlib
import itertools
import json
import re
import shlex
import urllib.request
from pathlib import Path

import pytest

from mmsearch_jax.commands.main import COMMANDS, main
from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.config_files import load
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.jobs.search_server import start_server

ROOT = Path(__file__).parents[2]
OPTIONS = {"--checkpoint": "checkpoint", "--rows": "rows.path", "--name": "rows.name"}
PAGE = (ROOT / "docs" / "tutorial.md").read_text()


def commands():
    """The commands of the page, in order, as lists of words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder in which the page's paths work, as in a clone."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of(words):
    """The settings of a command, with its own options read as the command line reads them."""
    command, overrides = COMMANDS[words[1]], []
    for name, value in itertools.pairwise(words):
        overrides += [f"--config.{OPTIONS[name]}={value}"] if name in OPTIONS else []
    overrides += [word for word in words if word.startswith("--config.")]
    return load(command.settings(), bundled(f"configs/{command.config}"), overrides).settings


def test_the_table_on_the_page_is_the_file():
    (shown,) = re.findall(r"^```csv\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert shown == (ROOT / "assets" / "examples" / "questions.csv").read_text()


def test_every_command_is_one_and_its_settings_are_sound(at_home, capsys):
    found = commands()
    assert [words[1] for words in found] == ["data", "data", "serve-tools", "sft", "grpo", "eval", "eval", "report"]
    assert all(words[0] == "mmsearch" for words in found)
    for words in found[:2]:
        assert main(words[1:]) == 0
    assert "3 read, 3 written" in capsys.readouterr().out
    rows = read_rows("runs/tutorial/rows.array_record")
    assert [row.answers[0] for row in rows] == ["Ostrin", "harl krone (HKR)", "green"]
    assert all(isinstance(row.image, bytes) for row in rows)
    for words in found[3:7]:
        settings_of(words).require_ready()


def test_the_pictures_find_their_pages():
    with start_server(ROOT / "assets" / "examples" / "corpus") as server:
        for query, answer in (("capital of Velmora", "Ostrin"), ("currency of Harland", "harl krone")):
            body = json.dumps({"query": query}).encode()
            request = urllib.request.Request(f"{server.url}/v1/text_search", body, {"Content-Type": "application/json"})
            with contextlib.closing(urllib.request.urlopen(request)) as reply:
                assert answer in reply.read().decode()


@pytest.mark.slow
def test_the_commands_lead_to_an_evaluated_adapter(at_home, capsys):
    found = commands()
    for words in found[:2]:
        assert main(words[1:]) == 0
    with start_server("assets/examples/corpus") as server:
        for words in found[3:]:
            # Only the port differs, which another test may hold.
            assert main([word.replace("http://127.0.0.1:8765", server.url) for word in words[1:]]) == 0, words
    assert (at_home / "runs/tutorial/grpo/policies/grpo/adapter/adapter_config.json").is_file()
    for name in ("grpo", "sft"):
        summary = json.loads((at_home / f"runs/tutorial/eval/eval/{name}/flags/summary.json").read_text())
        assert summary["complete"] and summary["n"] == 3 and summary["searches_per_question"] > 0
    assert (at_home / "runs/tutorial/eval/report.html").is_file()
