"""A start with other settings than those of the results in its work directory is refused, by the check and by the command."""

import dataclasses
import json
import shutil

import pytest

from mmsearch_jax.commands import main as cli
from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.settings import plain
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.datagen.journal import Journal
from mmsearch_jax.evaluation.samples import Stamp, answers_depend_on, open_folder
from mmsearch_jax.jobs import identities
from mmsearch_jax.jobs.stages import Stages
from mmsearch_jax.learners.run_identity import flat
from mmsearch_jax.settings.learning import TOY_WORLD

BASE = f"--config.checkpoint={bundled('assets')}/tiny-base"
REFUSE = "--config.eval.if_changed=refuse"
DATAGEN = (
    "--config.seeds.path=ROWS", "--config.teacher.url=http://teacher/v1",
    "--config.teacher.model=T", "--config.tools.url=http://search:8765", "--config.tokenizer=assets/tiny-base",
)  # fmt: skip


def settings_of(command, *overrides):
    return load(cli.COMMANDS[command].settings(), f"configs/{cli.COMMANDS[command].config}", overrides).settings


def trained(workdir, phase, identity):
    """Leaves what a checkpoint keeps of its run's settings."""
    record = workdir / "checkpoints" / phase / "7" / "extra" / "metadata"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"position": {}, "identity": flat(identity)}))


def sft(workdir, *given):
    trained(workdir, "sft", identities.training(settings_of("sft", *given), "sft"))


def grpo(workdir, *given):
    trained(workdir, "grpo", identities.training(settings_of("grpo", *given), "grpo"))


def pretrain(workdir, *given):
    trained(workdir, "pretrain_tower", identities.pretraining(settings_of("pretrain", *given)))


def quickstart(workdir, *given):
    stages = Stages(workdir, identities.quickstart(settings_of("quickstart", *given)))
    stages.run("worlds", lambda: None, workdir)


def datagen(workdir, *given):
    made = settings_of("datagen", *given)
    Journal(workdir / "journal.jsonl", {**identities.conversations(made), "tokenizer": "x"}).close({})


def evaluated(workdir, *given):
    made = settings_of("eval", *given)
    policy = identities.evaluated_policy(made, *identities.evaluated_folders(made))
    answers = answers_depend_on(policy, "miniworld", made.eval.temperature, made.seed, made.eval.oracle, made.rules())
    open_folder(workdir / "eval" / "policy", Stamp(answers, "match", {"checkpoint": made.checkpoint}, ["a"], 1))


OTHERS = {
    "sft": (sft, (BASE,), "--config.sft.batch.rows=4", "made with sft.batch.rows = 2, this run has 4"),
    "sft's world": (sft, (BASE,), "--config.world.num_lands=20", "made with world.num_lands = 160, this run has 20"),
    "grpo": (grpo, (BASE,), "--config.seed=3", "made with seed = 0, this run has 3"),
    "pretrain": (pretrain, (), "--config.text.num_hidden_layers=3", "made with text.num_hidden_layers = 4, this run has 3"),
    "quickstart": (quickstart, (), "--config.grpo.num_steps=9", "made with grpo.num_steps = 32, this run has 9"),
    "datagen": (datagen, DATAGEN, "--config.teacher.model=U", "made with other values of teacher: use another --workdir"),
    "eval": (evaluated, (BASE, REFUSE), "--config.eval.temperature=1", "made with eval.temperature = 0.0, which is now 1.0"),
    "eval's policy": (evaluated, (BASE, REFUSE), "--config.dtype=bfloat16", "made with policy.dtype = float32"),
}  # fmt: skip


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_are_refused_by_check_and_command_and_nothing_is_written(name, tmp_path, capsys):
    make, given, other, message = OTHERS[name]
    command, workdir = name.partition("'")[0], tmp_path / "run"
    workdir.mkdir()
    rows = tmp_path / "rows.jsonl"
    write_rows([Row("a", "", "Who?", ("she",), "", None)], rows)
    given = [word.replace("ROWS", str(rows)) for word in given]
    made_with = ["--config.sft.batch.rows=2"] if name == "sft" else []
    make(workdir, *given, *made_with)
    before = tree(workdir)
    line = [command, "--workdir", str(workdir), *given, other]
    for words in (["check", "--", *line], line):
        assert cli.main(words) == 2
        said = capsys.readouterr().err.splitlines()
        assert [each for each in said if each.startswith("error: ") and message in each], said
    assert tree(workdir) == before
    assert cli.main(["check", "--", *line[:-1], *made_with]) == 0, capsys.readouterr().err


def test_a_run_elsewhere_and_one_that_begins_anew_are_not_compared(tmp_path, capsys):
    sft(tmp_path, BASE)
    line = ["--", "sft", "--workdir", str(tmp_path), BASE, "--config.seed=1"]
    assert cli.main(["check", *line]) == 2
    assert cli.main(["check", *line, "--config.run.resume=false"]) == 0
    assert cli.main(["check", "--mount", str(tmp_path), *line]) == 0, capsys.readouterr().err


def test_a_changed_checkpoint_is_named(tmp_path, capsys):
    policy = tmp_path / "policy"
    shutil.copytree("assets/tiny-base", policy)
    evaluated(tmp_path, f"--config.checkpoint={policy}")
    (policy / "model.safetensors").write_bytes((policy / "model.safetensors").read_bytes()[::-1])
    assert cli.main(["check", "--", "eval", "--workdir", str(tmp_path), f"--config.checkpoint={policy}", REFUSE]) == 2
    assert "holds samples made with policy.fingerprint = " in capsys.readouterr().err


def test_the_toy_world_s_sizes_belong_to_a_run_that_trains_on_it():
    toy, own = settings_of("sft"), settings_of("sft", "--config.sft.data.sets=mine.array_record")
    assert TOY_WORLD in toy.sft.data.sets
    named = {name for name in flat(identities.training(toy, "sft")) if name.startswith("world.")}
    assert named == {f"world.{name}" for name in plain(toy.world)} - {"world.num_eval_rows"}
    assert not any(name.startswith("world.") for name in flat(identities.training(own, "sft")))
    prompts = settings_of("grpo")
    assert "world" in identities.training(prompts, "grpo")
    elsewhere = dataclasses.replace(prompts, grpo=dataclasses.replace(prompts.grpo, rows="mine.array_record"))
    assert "world" not in identities.training(elsewhere, "grpo")
