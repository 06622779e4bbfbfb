"""`mmsearch check` and the command itself: one line for a mistake in settings, arguments and files, and nothing is written."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mmsearch_jax.commands import main as cli
from tests.commands.test_check import POD, SFT

HERE_TOO = ("sft", "--workdir", "runs/none", "--config.checkpoint=@/tiny")
GRPO_HERE = ("grpo", *HERE_TOO[1:])
EVAL_HERE = ("eval", *HERE_TOO[1:])
# @ is the folder of `made`.
MORE_MISTAKES = {
    "a config with a syntax error": (("sft", "--config", "@/syntax.py"), "cannot be run: SyntaxError"),
    "a config that raises": (("sft", "--config", "@/raises.py"), "raises.py cannot be run: KeyError: 'x'"),
    "a config without its function": (("sft", "--config", "@/empty.py"), "empty.py: it has no get_config()"),
    "a config that returns another thing": (("sft", "--config", "@/dict.py"), "must return an ml_collections.ConfigDict"),
    "a config that is no Python": (("sft", "--config", "@/table.csv"), "table.csv is no config file: give a Python file"),
    "another command's config": (
        ("sft", "--config", "configs/grpo_qwen2_5_vl_7b.py"),
        "the config sets 'grpo', which this command does not have",
    ),
    "a topology for a config that takes none": (
        ("sft", "--config", "configs/tiny_sft.py:v5p:2x2x1"),
        "its get_config takes no argument, so remove 'v5p:2x2x1'",
    ),
    "a wrong type inside a tuple": ((*HERE_TOO, "--config.sft.data.sets=(1,2)"), "sft.data.sets takes a tuple such as ('a',)"),
    "a number that is none": ((*HERE_TOO, "--config.sft.optimizer.learning_rate=nan"), "takes a number, got 'nan'"),
    "rows that are no ArrayRecord": (
        (*HERE_TOO, "--config.sft.data.sets=@/junk.array_record"),
        "junk.array_record is no .array_record file, whatever its name says: convert what it is",
    ),
    "rows that are no Parquet": (
        (*GRPO_HERE, "--config.grpo.rows=@/junk.parquet", "--config.tools.url=http://search:8765"),
        "junk.parquet is no .parquet file, whatever its name says",
    ),
    "a checkpoint of another family": (("sft", "--config.checkpoint=@/family"), "describes a 'qwen3_vl' model, expected"),
    "a checkpoint whose download broke off": (("sft", "--config.checkpoint=@/torn"), "torn/model.safetensors"),
    "an adapter where a policy is needed": (
        ("sft", "--config.checkpoint=@/adapter"),
        "adapter is a LoRA adapter, and mmsearch sft needs a whole policy",
    ),
    "an adapter without its base": (("eval", "--checkpoint", "@/adapter"), "give it with --config.base=DIR"),
    "no checkpoint": (("sft", "--config.checkpoint="), "checkpoint is empty: give the folder of a policy"),
    "a bucket without a name": ((*HERE_TOO, "--workdir", "gs://"), "only gs://BUCKET/FOLDER, s3://BUCKET/FOLDER and"),
    "an empty work directory": ((*HERE_TOO, "--workdir", ""), "--workdir: it is empty: give a directory"),
    "an evaluation's name that leaves the directory": (
        (*EVAL_HERE, "--config.eval.name=../../x"),
        "eval.name is '../../x': use letters, digits",
    ),
    "a search server without a scheme": (
        (*EVAL_HERE, "--config.tools.url=search:8765"),
        "tools.url names 'search:8765': give an address such as http",
    ),
    "a judge without a scheme": (
        (*EVAL_HERE, "--config.judge.url=judge:8000/v1", "--config.judge.model=a"),
        "judge.url is 'judge:8000/v1': give an address such as",
    ),
    "judging again what was never asked": ((*EVAL_HERE, "--rejudge"), "no samples in runs/none/eval/policy: run"),
    "a direct evaluation that was never made": (
        (*EVAL_HERE, "--config.eval.direct=nope"),
        "eval.direct is 'nope', but there is no runs/none/eval/nope: run that evaluation first",
    ),
    "a table of other columns": (
        (*EVAL_HERE, "--rows", "@/table.csv", "--config.tools.url=http://search:8765"),
        "table.csv has an unknown format: its name must end in .jsonl",
    ),
    "a name without rows": ((*EVAL_HERE, "--name", "x"), "rows.path is empty, but rows.name is 'x': also name"),
    "a port": (("serve", "--config.checkpoint=@/tiny", "--port", "99999"), "--port 99999: ports are from 1 to 65535"),
    "a corpus that is a file": (("serve-tools", "--corpus", "@/table.csv"), "table.csv is a file: give the directory"),
    "a source of data": (("data", "convert", "fvqua", "@/table.csv", "out.jsonl"), "unknown source 'fvqua', expected"),
    "an import of another family": (("import-hf", "@/family", "@/out"), "describes a 'qwen3_vl' model, expected"),
    "a picture that is none": (
        ("ask", "@/table.csv", "who?", "--config.checkpoint=@/tiny"),
        "@/table.csv is not an image",
    ),
    "heads that do not divide the width": (
        ("pretrain", "--config.text.num_attention_heads=5"),
        "text.hidden_size is 192, which 5 heads do not divide: change one",
    ),
    "an option without its value": (("sft", "--workdir"), "argument --workdir: expected one argument"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with files that are not what their names say."""
    folder = tmp_path_factory.mktemp("files")
    for name, text in {
        "syntax.py": "def get_config(:\n", "raises.py": "def get_config():\n    raise KeyError('x')\n", "empty.py": "",
        "dict.py": "def get_config():\n    return {}\n", "table.csv": "frage,antwort\nwer,er\n",
        "junk.array_record": "junk", "junk.parquet": "junk",
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    for name in ("tiny", "torn"):
        shutil.copytree("assets/tiny-base", folder / name)
    weights = folder / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for name, file, record in (
        ("family", "config.json", {"model_type": "qwen3_vl"}),
        ("adapter", "adapter_config.json", {"base_model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct", "r": 8}),
    ):
        (folder / name).mkdir()
        (folder / name / file).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("name", MORE_MISTAKES)
def test_check_and_command_say_the_same_one_line_and_nothing_is_written(name, check, made, capsys):
    words, message = MORE_MISTAKES[name]
    words, message = [word.replace("@", str(made)) for word in words], message.replace("@", str(made))
    before = sorted(made.rglob("*"))
    code, problems, _, _ = check("--", *words)
    assert code == 2 and len(problems) == 1 and message in problems[0], problems
    try:
        assert cli.main(words) == 2
    except SystemExit as stop:
        assert stop.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and message in said[0], said
    assert sorted(made.rglob("*")) == before and not Path("runs/none").exists()


def test_a_directory_that_is_not_the_user_s_is_refused(check, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    code, problems, _, _ = check("--", "sft", "--workdir", tmp_path / "a" / "b", "--config.checkpoint=assets/tiny-base")
    assert code == 2 and problems == [
        f"--workdir {tmp_path}/a/b cannot be made or written to: {tmp_path} is not yours to write to; give another one"
    ]


def test_a_path_that_leaves_the_mount_is_not_below_it(check):
    code, problems, _, _ = check(*POD, "--", *SFT[:-1], "/mnt/../x")
    assert code == 2 and problems == [
        "--workdir /mnt/../x is lost with the run's machines: give a directory below /mnt, which outlives them"
    ]
