"""Every command that a page, a usage text, a config or a help text shows is one that works.

Commands of `mmsearch` go through `mmsearch check`; scripts run in their dry run, and what they would check is checked;
targets and modules must exist. In pages, a fenced block holds shell commands unless its language says otherwise. What is not
there on a reader's machine is one of:

- a word in capitals (DIR, NAME), which the reader replaces;
- the result of another command that is shown (runs/sft/policies/sft, or what `hf download` fetches);
- a file below /mnt, the shared storage of a pod, or one of the reader's own files (`OWN`).
"""

import argparse
import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from mmsearch_jax.commands import check
from mmsearch_jax.commands import main as cli
from mmsearch_jax.core import search_api
from tests.launch import stand_in_check

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN = (
    "photo.jpg", "photos", "data", "models", "downloads", "corpus", "infoseek.array_record", "fvqa.array_record",
    "fvqa_train.array_record", "wiki-18.jsonl.gz", "Qwen2.5-VL-7B-Instruct", "DIR", "/mnt",
    "deepmmsearchvqa.array_record", "fvqa_train.parquet", "/shared",
)  # fmt: skip
"""Files that a reader brings; the page says what they are."""
PROGRAMS = {
    "cd", "source", "export", "mkdir", "git", "gcloud", "kubectl", "docker", "hf", "unzip", "ssh", "sudo", "xprof", "gcsfuse",
    "huggingface-cli", "tensorboard", "open", "cp", "ls", "cat", "nvidia-smi",
}  # fmt: skip
"""Programs of others: no more is known of them than that they are named."""
JOINTS = {"|", "&&", "||", ";", "&"}
OTHERS_MODULES = {"lmms_eval", "run.py", "pytest"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
ROUTES = {value for name, value in vars(search_api).items() if name.startswith("ROUTE_")}


class Block(NamedTuple):
    """A fenced block or another text with commands: where it is, its language, its text."""

    place: str
    language: str
    text: str


def fenced(path):
    """The fenced blocks of a page; a fence may be indented, and may begin an item of a list."""
    lines, blocks, opened = path.read_text(encoding="utf-8").splitlines(), [], None
    for number, line in enumerate(lines, 1):
        fence = re.fullmatch(r"\s*(?:\d+\.\s+|[-*]\s+)?```(\w*)", line)
        if opened is None and fence:
            opened = (number, fence.group(1), [])
        elif opened is not None and fence:
            start, language, inside = opened
            blocks.append(Block(f"{path.relative_to(ROOT)}:{start}", language, "\n".join(inside)))
            opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{path}: the block of line {opened and opened[0]} is not closed"
    return blocks


def usages():
    """The commands in help texts, in the docstrings of configs and in the opening comments of scripts."""
    for command in cli.COMMANDS.values():
        for example in command.examples:
            yield Block(f"mmsearch {command.name} --help", "", re.sub(r" {3,}\(.*\)$", "", example))
    for path in sorted((ROOT / "configs").rglob("*.py")):
        words = path.read_text(encoding="utf-8").split('"""')[1].split("\n\n")[1:]
        yield Block(str(path.relative_to(ROOT)), "", "\n".join(part for part in words if "mmsearch " in part))
    for path in sorted((ROOT / "launch").iterdir()):
        if path.suffix in (".sh", ".sbatch"):
            groups = re.findall(r"(?:^#   +.*\n)+", path.read_text(encoding="utf-8").split("set -e")[0], re.MULTILINE)
            for group in groups:
                text = re.sub(r"^#   ", "", group, flags=re.MULTILINE)
                if text.startswith(("launch/", "sbatch ", "MMSEARCH_")):
                    yield Block(str(path.relative_to(ROOT)), "", text)


class Shown(NamedTuple):
    """A command: where it is shown, the variables before it, its words."""

    place: str
    variables: dict[str, str]
    words: list[str]


def commands(block):
    """The commands of a block of shell commands."""
    if block.text.lstrip().startswith("#!"):
        return []
    found = []
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        for joined, words in itertools.groupby(shlex.split(line, comments=True), lambda word: word in JOINTS):
            words, variables = list(words), {}
            while words and (given := re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", words[0])):
                variables[given.group(1)] = given.group(2)
                words = words[1:]
            if words and not joined:
                found.append(Shown(block.place, variables, words))
    return found


BLOCKS = [*(block for page in PAGES for block in fenced(page)), *usages()]
SHOWN = [shown for block in BLOCKS if block.language in ("", "sh", "bash") for shown in commands(block)]


def made(words):
    """What a command of `mmsearch` leaves behind."""
    if words[:2] == ["hf", "download"]:
        yield words[words.index("--local-dir") + 1]
    name = words[1] if len(words) > 1 else ""
    command = cli.COMMANDS.get(name)
    if command is None:
        return
    if command.workdir:
        given = [words[at + 1] for at, word in enumerate(words[:-1]) if word == "--workdir"]
        workdir = given[0] if given else f"runs/{name}"
        yield workdir
        yield from (f"{workdir}/policies/{stage}" for stage in ("sft", "grpo") if name in (stage, "quickstart"))
    if name in ("import-hf", "export-hf", "index", "data", "cache"):
        yield from (word for word in words[2:] if word.startswith("runs/"))
    yield from (word.partition("=")[2] for word in words if word.startswith("--config.out="))


EXPECTED = {path for shown in SHOWN for path in made(shown.words)}


def checked(words, options=()):
    """The problems that `mmsearch check` finds."""
    parser = argparse.ArgumentParser()
    parser.set_defaults(commands=cli.COMMANDS)
    assert check.COMMAND.add_arguments is not None
    check.COMMAND.add_arguments(parser)
    given = [part for path in (*sorted(EXPECTED), *OWN) for part in ("--expect", path)]
    findings, _ = check.check_line(words, parser.parse_args([*given, *options, "--", *words]))
    # A setting that looks into a folder which another command fetches, and packages that only some need.
    elsewhere = [f"'{path}', must be the folder" for path in EXPECTED]
    elsewhere += [f"pip install 'mmsearch-jax[{extra}]'" for extra in EXTRAS]
    return [each for each in findings.problems if not any(text in each for text in elsewhere)]


def of_mmsearch(shown, _):
    policies = [word for word in shown.words if "policies/" in word and word.partition("=")[2].startswith("runs/")]
    unmade = [word for word in policies if word.partition("=")[2] not in EXPECTED]
    return [*checked(shown.words[1:], ["--shared", "/mnt"]), *(f"no command shown makes {word}" for word in unmade)]


def of_script(shown, folder):
    """Runs a script's dry run with a Python that records the check, and checks what it recorded."""
    if shown.words[0] == "sbatch":
        at = next(number for number, word in enumerate(shown.words) if word.endswith(".sbatch"))
        nodes = next((int(word.partition("=")[2]) for word in shown.words[:at] if word.startswith("--nodes=")), 2)
        more = {"SLURM_NNODES": str(nodes), "SLURM_NTASKS": str(8 * nodes)}
        words = shown.words[at:]
    else:
        more, words = {}, list(shown.words)
    if Path(words[0]).name in ("gke.sh", "xpk.sh", "tpu_queued_resource.sh"):
        words.insert(2, "--dry-run")
    for name in ("keys.env", "mount.sh"):
        (folder / name).write_text("A=1\n")
    (folder / "DIR").mkdir()
    environment = {
        **os.environ, **shown.variables, **more, "MMSEARCH_DRY_RUN": "1", "SLURM_SUBMIT_DIR": str(ROOT),
        "FAKE": str(folder), "PYTHON": str(stand_in_check.write(folder)),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(ROOT / words[0]), *words[1:]], capture_output=True, text=True, cwd=folder, env=environment
    )
    if done.returncode:
        return [done.stderr.strip()]
    record = folder / "words"
    if not record.exists():
        return []
    options = record.read_text().split("\0")[1:-1]
    at = options.index("--")
    options = [str(folder / word) if word == "keys.env" else word for word in options]
    return checked(options[at + 1 :], options[:at])


def of_python(shown, folder):
    script = shown.words[1]
    if script == "launch/local.py":
        done = subprocess.run(
            [sys.executable, str(ROOT / script), "--dry-run", *shown.words[2:]],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        return [done.stderr.strip()] if done.returncode else []
    module = shown.words[2] if script == "-m" else script
    if module in OTHERS_MODULES or importlib.util.find_spec(module.removesuffix(".py").replace("/", ".")) is not None:
        return []
    return [f"there is no module {module}"]


def of_pip(shown, _):
    named = re.findall(r"(?:mmsearch-jax|\.)\[([\w,]+)\]", " ".join(shown.words))
    unknown = [extra for group in named for extra in group.split(",") if extra not in EXTRAS]
    return [f"there is no extra {extra}" for extra in unknown]


def of_make(shown, _):
    targets = [word for word in shown.words[1:] if "=" not in word and not word.startswith("-")]
    return [f"there is no target {target}" for target in targets if target not in TARGETS]


def of_curl(shown, _):
    addresses = [word for word in shown.words if re.match(r"(http://)?(localhost|127\.0\.0\.1):8765/", word)]
    return [f"no route at {each}" for each in addresses if "/" + each.partition(":8765/")[2] not in ROUTES]


HANDLERS = {
    "mmsearch": of_mmsearch, ".venv/bin/mmsearch": of_mmsearch, "make": of_make, "pip": of_pip, "curl": of_curl,
    "python": of_python, "python3": of_python, "sbatch": of_script,
}  # fmt: skip


def problems(shown, folder):
    """What is wrong with a command that is shown."""
    program = shown.words[0]
    if program.startswith("launch/"):
        return of_script(shown, folder)
    if program in HANDLERS:
        return HANDLERS[program](shown, folder)
    return [] if program in PROGRAMS else [f"no rule for the program {program}"]


PLACES = {}
for each in SHOWN:
    PLACES.setdefault(each.place, []).append(each)


@pytest.mark.parametrize("place", PLACES)
def test_the_commands_of_a_block_work(place, tmp_path, monkeypatch):
    page = place.partition(":")[0]
    for name in {name for shown in SHOWN if shown.place.startswith(page) for name in shown.variables}:
        # A page that sets a variable once has set it.
        monkeypatch.setenv(name, "set")
    wrong = []
    for number, shown in enumerate(PLACES[place]):
        folder = tmp_path / str(number)
        folder.mkdir()
        wrong += [f"{shlex.join(shown.words)}: {problem}" for problem in problems(shown, folder)]
    assert not wrong, "\n".join(wrong)


def test_blocks_of_other_languages_are_read_by_them():
    for block in BLOCKS:
        if block.language == "python":
            compile(block.text, block.place, "exec")
        elif block.language == "json":
            json.loads(block.text)
        elif block.text.lstrip().startswith("#!"):
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.place}: {done.stderr}"
        else:
            assert block.language in ("", "sh", "bash", "text", "csv"), block.place


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mmsearch sft --config configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4 ...", "unknown argument '...'"),
        ("mmsearch grpo --config.checkpoint=runs/grpo/policies/sft", "no command shown makes"),
        ("mmsearch compare runs/never_made runs/eval", "there is no runs/never_made"),
        ("make quickstrat", "there is no target quickstrat"),
        ("python -m benchmarks.nothing", "there is no module benchmarks.nothing"),
        ("pip install 'mmsearch-jax[tpus]'", "there is no extra tpus"),
        ("curl -s localhost:8765/v1/textsearch", "no route at"),
        ("launch/gke.sh fly --name a", "unknown step 'fly'"),
        ("launch/gke.sh up --name a --image i --bucket B --topology v5p:2x2x4 -- sft --workdir runs/a", "is lost with"),
        ("MMSEARCH_SHARED=/x sbatch --nodes=4 launch/slurm.sbatch sft --workdir /y/a", "all 4 machines share"),
        ("python launch/local.py --processes 0 -- sft", "must be at least 1"),
        ("frobnicate", "no rule for the program frobnicate"),
    ],
)
def test_a_command_that_does_not_work_is_found(line, message, tmp_path):
    (shown,) = commands(Block("here", "", line))
    assert message in "\n".join(problems(shown, tmp_path))


def test_pages_are_read():
    assert len(PAGES) > 15 and len(SHOWN) > 80
    blocks = fenced(ROOT / "docs" / "launch.md")
    assert any("launch/gke.sh up" in block.text for block in blocks)
