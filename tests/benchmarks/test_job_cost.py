"""The estimate of a whole job, against figures computed here from the config's sizes."""

import json

import pytest

from benchmarks import job_cost

GRPO = "configs/grpo_qwen2_5_vl_7b.py:h200:8"


def estimate(*arguments):
    return job_cost.estimate(job_cost._parser().parse_args([*arguments, "--price", "3"]))


def test_sft_costs_its_steps_on_all_devices():
    made = estimate("configs/sft_qwen2_5_vl_7b.py:h200:8")
    # One row of 8,192 tokens for each device and step, a second each.
    assert (made["steps"], made["seconds a step"]) == (1250, 1.0)
    assert made["$ of devices"] == pytest.approx(1250 / 3600 * 8 * 3)
    assert "judgements" not in made


def test_grpo_adds_rollouts_waiting_judge_and_searches():
    made = estimate(GRPO)
    each = 800 / 3414 + 2200 / 39631 + 3000 / 8192 * (1.0 + 2 * 8192 / 30201)
    assert made["seconds a step on the devices"] == pytest.approx(64 * each, rel=1e-6)
    assert made["seconds a step"] == pytest.approx(64 * each + 35)
    assert made["judgements"] == 1560 * 512 and made["searches"] == pytest.approx(1560 * 512 * 2.8)
    assert made["judgements a second"] == pytest.approx(512 / made["seconds a step"])
    assert estimate(GRPO, "--paid", "0.25")["$ of searches"] == pytest.approx(made["$ of searches"] / 4)


def test_a_plans_time_replaces_the_measured_one(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"stages": [{"stage": "grpo", "learn_seconds": 20.0, "rollout_seconds": 5.0}]}))
    assert estimate(GRPO, "--plan", str(file), "--wait", "0")["seconds a step"] == 25
    file.write_text(json.dumps({"stages": [{"stage": "grpo", "learn_seconds": None, "rollout_seconds": 5.0}]}))
    with pytest.raises(SystemExit, match="no time of a step of grpo"):
        estimate(GRPO, "--plan", str(file))


def test_a_number_of_samples_per_day_gives_the_time_of_a_step():
    # 512 trajectories a step.
    assert estimate(GRPO, "--samples-per-day", str(512 * 8640), "--wait", "2")["seconds a step"] == pytest.approx(12)


def test_a_mistake_is_one_line(capsys):
    with pytest.raises(SystemExit, match="error: topology"):
        job_cost.main(["configs/sft_qwen2_5_vl_7b.py:v5p:3x3", "--price", "1"])
    assert not capsys.readouterr().err
