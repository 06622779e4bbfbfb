"""The quickstart's order, resuming and last words. The stages themselves are tested with their own modules."""

import json
import shutil

import pytest

from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.jobs import quickstart, quickstart_summary
from mmsearch_jax.jobs.quickstart import run_quickstart
from mmsearch_jax.learners import training_run
from mmsearch_jax.learners.run_log import RunLog
from mmsearch_jax.settings.commands import QuickstartSettings

GROUP = {"n": 4, "accuracy": 0.5}
SUMMARY = {
    "n": 24, "accuracy": 0.5, "ci95": [0.3, 0.7], "by_kind": dict.fromkeys(("visual", "whole_image", "crop", "two_hop"), GROUP),
    "search_required": GROUP, "search_free": GROUP, "crop_3_or_more_entities": GROUP, "searches_per_question": 1.25,
    "needless_search_rate": 0.0, "seed": 0,
}  # fmt: skip


def settings_of(*overrides):
    file = f"{bundled('configs/quickstart.py')}:smoke"
    return load(QuickstartSettings, file, [f"--config.{each}" for each in overrides]).settings


def evaluate(settings, workdir, rows):
    """Stands in for an evaluation: leaves its summary."""
    folder = workdir / "eval" / settings.eval.name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, "name": settings.eval.name}))


@pytest.fixture
def stages(monkeypatch):
    """Stands in for the stages, which only leave their files. Returns their calls; GRPO can be told to be interrupted."""
    calls = []

    def learn(name):
        def run(settings, workdir):
            calls.append(name)
            with RunLog(workdir, name, 2, show_progress=False) as log:
                log.write(1, {"target_nll": 1.0, "reward": 0.0})
                if "interrupt " + name in calls:
                    raise KeyboardInterrupt
                log.write(2, {"target_nll": 0.5, "reward": 0.5})
            (workdir / "policies" / name).mkdir(parents=True)

        return run

    def prepare(settings, workdir, name):
        folder = workdir / "worlds" / name
        row = Row("r0", "scene.jpg", "Which flag is this?", ("Peru",), "crop", True)
        write_rows([row], folder / "eval" / "rows.jsonl")
        return folder

    monkeypatch.setattr(quickstart, "prepare_world", prepare)
    monkeypatch.setattr(quickstart, "run_sft", learn("sft"))
    monkeypatch.setattr(quickstart, "run_grpo", learn("grpo"))
    monkeypatch.setattr(
        quickstart, "run_eval", lambda s, workdir, rows: (calls.append(s.eval.name), evaluate(s, workdir, rows))
    )
    return calls


EVALUATED = ["direct", "rag", "sft", "grpo", "grpo_no_crop"]


def test_a_second_start_keeps_the_curves_and_repeats_only_what_was_not_finished(stages, tmp_path, capsys):
    stages.append("interrupt grpo")
    with pytest.raises(KeyboardInterrupt):
        run_quickstart(settings_of(), tmp_path)
    stages.clear()
    first = run_quickstart(settings_of(), tmp_path)
    assert stages == ["grpo", *EVALUATED]
    stages.clear()
    capsys.readouterr()
    assert run_quickstart(settings_of(), tmp_path) == first and stages == []
    curves = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(each["phase"], each["step"]) for each in curves] == [("sft", 1), ("sft", 2), ("grpo", 1), ("grpo", 2)]
    assert "SFT: loss" in (tmp_path / "report.html").read_text()
    said = capsys.readouterr().out
    assert "0.0\u00a0% for sft and grpo is expected" in said and "mmsearch ask" in said and "{" not in said
    # Commands and paths may be longer.
    prose = said[said.index("Real world") : said.index("Report")]
    assert max(map(len, prose.splitlines())) <= 80


def test_a_work_directory_of_other_settings_is_refused(stages, tmp_path):
    run_quickstart(settings_of(), tmp_path)
    stages.clear()
    with pytest.raises(ConfigError, match=r"seed = 0, this run has 1"):
        run_quickstart(settings_of("seed=1"), tmp_path)
    assert stages == []
    # These change how a run is stored, not its results.
    run_quickstart(settings_of("run.keep=5"), tmp_path)


def test_only_a_short_run_is_said_to_show_nothing_of_the_method():
    full = load(QuickstartSettings, bundled("configs/quickstart.py")).settings
    assert "expected" not in quickstart_summary.training_note(full)
    assert "132" in quickstart_summary.training_note(full)


@pytest.mark.slow
def test_a_killed_quickstart_goes_on_from_its_checkpoints_to_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "run_eval", evaluate)
    few = ("run.checkpoint_every=1", "world.num_eval_rows=4", "sft.num_steps=4", "grpo.num_steps=2")
    run_quickstart(settings_of(*few), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "worlds", tmp_path / "cut" / "worlds")
    finish = training_run.TrainingRun.finish_step
    for cut_after in (3, 1):

        def cut(self, step, *rest, after=cut_after, **more):
            finish(self, step, *rest, **more)
            if step == after:
                raise KeyboardInterrupt

        monkeypatch.setattr(training_run.TrainingRun, "finish_step", cut)
        with pytest.raises(KeyboardInterrupt):
            run_quickstart(settings_of(*few), tmp_path / "cut")
    monkeypatch.setattr(training_run.TrainingRun, "finish_step", finish)
    run_quickstart(settings_of(*few), tmp_path / "cut")
    curves = {}
    for name in ("whole", "cut"):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        curves[name] = [(each["phase"], each["step"], each.get("target_nll"), each.get("reward")) for each in lines]
    assert curves["cut"] == curves["whole"] and len(curves["cut"]) == 6
    for stage in ("sft", "grpo"):
        file = f"policies/{stage}/model.safetensors"
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
