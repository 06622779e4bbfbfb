"""The simulation of GRPO steps: queues against closed forms, the clock against Little's law, effects of remedies."""

import dataclasses
import json
import math

import numpy as np
import pytest

from benchmarks.episode_simulation import PARTS, Delay, Scenario, Simulation, Station, mean_steps
from benchmarks.scale_sim import default_times, planned, remedies, scenario, table

SMALL = Scenario(hosts=4, slots=16, prompts=24, learn_seconds=10.0)


def erlang_c(servers, load):
    """Mean wait divided by mean service time in an M/M/c queue (A. K. Erlang); load in servers."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last) / (servers - load)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (4, 3.2), (20, 18.0)])
def test_the_wait_at_a_station_is_erlang_s(servers, load):
    rng, station, waits, now = np.random.default_rng(0), Station(servers), [], 0.0
    for gap, service in zip(rng.exponential(1 / load, 400_000), rng.exponential(1.0, 400_000), strict=True):
        now += gap
        waits.append(station.serve(now, service)[0] - now)
    assert np.mean(waits[10_000:]) == pytest.approx(erlang_c(servers, load), rel=0.06)


def test_a_rate_lets_no_more_through_and_makes_nobody_wait_below_it():
    quota = Station(1)
    begins = [quota.serve(0.0, 1 / 10)[0] for _ in range(100)]
    assert np.diff(begins) == pytest.approx(np.full(99, 0.1))
    assert quota.serve(100.0, 1 / 10)[0] == 100.0


def test_episodes_in_flight_are_arrivals_times_time_by_little_s_law():
    # One host with one slot, turns of fixed length and no search: a closed queue with a known mean length.
    alone = dataclasses.replace(
        SMALL,
        hosts=1,
        slots=1,
        prompts=50,
        group_size=2,
        calls_on=0.0,
        token_sigma=0.0,
        judge=Delay(1e-9, 0.0),
        overlap=False,
    )
    (step,) = Simulation(alone).run(1)
    service = alone.extend_seconds + alone.turn_tokens * alone.decode_seconds
    assert step.rollout_seconds == pytest.approx(100 * service)
    # Arrival rate x mean time = mean number that wait or are served: (100 + 99 + ... + 1) / 100.
    assert step.episodes / step.rollout_seconds * step.mean_episode == pytest.approx(50.5)


def test_an_episode_s_time_is_made_up_of_its_parts():
    (step,) = Simulation(SMALL).run(1)
    assert sum(step.critical.values()) == pytest.approx(step.rollout_seconds)
    assert sum(step.mean_parts.values()) == pytest.approx(step.mean_episode)
    seconds, parts = mean_steps([step])
    assert set(parts) == {*PARTS, "learner"} and sum(parts.values()) == pytest.approx(seconds)


def test_the_quota_bounds_the_searches():
    starved = dataclasses.replace(SMALL, quota=5.0)
    (step,) = Simulation(starved).run(1)
    assert step.calls / step.rollout_seconds <= 5.0
    assert max(step.critical, key=step.critical.__getitem__) == "quota"


def test_oversampling_waits_for_no_straggler_and_spends_more_searches():
    slow = dataclasses.replace(SMALL, search=Delay(1.0, 1.5))
    plain, more = (
        np.mean([s.seconds for s in Simulation(each).run(6)])
        for each in (slow, dataclasses.replace(slow, oversample=3))
    )
    assert more < plain
    calls = [sum(s.calls for s in Simulation(each).run(2)) for each in (slow, dataclasses.replace(slow, oversample=3))]
    assert calls[1] > calls[0]


def test_overlap_hides_the_learner_behind_waiting_but_makes_no_chip_faster():
    def mean(**changes):
        return np.mean([step.seconds for step in Simulation(dataclasses.replace(SMALL, **changes)).run(6)[1:]])

    # While episodes wait for searches, the learner can use the chips.
    waiting = {"search": Delay(15.0, 0.0), "decode_seconds": 0.001}
    assert mean(**waiting, overlap=True) < mean(**waiting) - SMALL.learn_seconds / 2
    # If learning takes longest, overlap saves little.
    assert mean(learn_seconds=1000.0, overlap=True) > 1000.0


def test_the_same_seed_gives_the_same_steps_and_another_others():
    one, same, other = (Simulation(SMALL, seed).run(1)[0].seconds for seed in (1, 1, 2))
    assert one == same != other


def test_measured_delays_take_the_place_of_the_log_normal_ones():
    drawn = Delay(1.0, 1.0, 60.0, (2.0, 3.0, 99.0)).draw(np.random.default_rng(0), 1000)
    assert set(drawn.tolist()) == {2.0, 3.0, 60.0}
    made = scenario(16, default_times(), {"search": [0.5]})
    assert made.search.measured == (0.5,) and made.judge.measured == ()


def test_more_chips_bring_more_prompts_and_the_same_learning_time():
    small, large = scenario(16, default_times(), {}), scenario(4096, default_times(), {})
    assert large.prompts * large.group_size > 100_000 and large.quota == small.quota
    assert small.learn_seconds == pytest.approx(large.learn_seconds)


def test_a_table_names_what_each_run_waits_for():
    runs = {name: Simulation(each).run(1) for name, each in list(remedies(SMALL).items())[:2]}
    lines = table(runs, Simulation(SMALL).run(1)).splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {lines[0].count("|")}
    assert "x |" in lines[2]


def test_times_come_from_a_plan_and_a_plan_without_them_is_refused(tmp_path):
    config = tmp_path / "configs" / "grpo.py"
    config.parent.mkdir()
    config.write_text(
        "from mmsearch_jax.recipes import tiny\nfrom mmsearch_jax.settings.commands import GRPOSettings\n\n\n"
        "def get_config():\n    return tiny.base(GRPOSettings())\n"
    )
    plan = {
        "config": str(config),
        "stages": [{"stage": "grpo", "learn_seconds": 48.0}],
        "plans": [
            {"program": "decode", "chips": 16, "estimate": {"seconds": 0.16}},
            {"program": "extend", "chips": 16, "estimate": {"seconds": 0.05}},
        ],
    }
    # 12 prompts x 8 on 16 chips; 16 tokens per call.
    assert planned(json.loads(json.dumps(plan))) == pytest.approx(
        {"learn_chip_seconds": 8.0, "decode_seconds": 0.01, "extend_seconds": 0.05}
    )
    with pytest.raises(SystemExit, match="the plan has no 'grpo': give the --json of mmsearch plan"):
        planned(plan | {"stages": []})
