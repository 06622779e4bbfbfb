"""The record of a job's finished stages."""

import pytest

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.jobs.stages import Stages


def done(stages, tmp_path, *names):
    """Runs the stages; returns those whose work was done."""
    worked = []
    for name in names:
        stages.run(name, lambda name=name: ((tmp_path / name).touch(), worked.append(name)), tmp_path / name)
    return worked


def test_a_finished_stage_is_not_repeated_and_keeps_its_time(tmp_path):
    assert done(Stages(tmp_path, {"seed": 0}), tmp_path, "a", "b") == ["a", "b"]
    again = Stages(tmp_path, {"seed": 0})
    assert done(again, tmp_path, "a", "b", "c") == ["c"] and list(again.seconds) == ["a", "b", "c"]


def test_an_interrupted_stage_and_one_whose_result_is_gone_are_repeated(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    stages = Stages(tmp_path, {})
    done(stages, tmp_path, "a")
    with pytest.raises(KeyboardInterrupt):
        stages.run("b", interrupt, tmp_path / "b")
    again = Stages(tmp_path, {})
    assert again.seconds.keys() == {"a", "b"}
    (tmp_path / "a").unlink()
    assert done(again, tmp_path, "a", "b") == ["a", "b"]


def test_other_settings_are_refused_by_name_unless_the_run_begins_anew(tmp_path):
    done(Stages(tmp_path, {"seed": 0, "sft.num_steps": 3, "sizes": (1, 2)}), tmp_path, "a")
    with pytest.raises(
        ConfigError, match=r"sft.num_steps = 3, this run has 132: set it back, or use another --workdir"
    ):
        Stages(tmp_path, {"seed": 0, "sft.num_steps": 132, "sizes": (1, 2)})
    changed = Stages(tmp_path, {"seed": 0, "sft.num_steps": 132}, resume=False)
    assert done(changed, tmp_path, "a") == ["a"]


def test_a_setting_that_the_other_version_lacks_does_not_count(tmp_path):
    done(Stages(tmp_path, {"seed": 0, "gone": 1}), tmp_path, "a")
    assert done(Stages(tmp_path, {"seed": 0, "new": 2}), tmp_path, "a") == []
