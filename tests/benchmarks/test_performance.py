"""The benchmarks' table and page, and checks that the compared programs are comparable."""

import json
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gpu, harness, performance
from benchmarks.peers import measuring
from benchmarks.table import Measured, faster, report

ROW = {"value": 0.5, "unit": "x", "aim": "at least 1", "holds": False, "spread": [0.4, 0.6], "why": "Both wait."}


def test_a_ratio_is_that_of_the_geometric_means_and_its_spread_that_of_the_extremes():
    row = faster([1.0, 2.0, 4.0], [2.0, 4.0, 16.0], 2.5)
    assert (row.value, row.spread, row.holds) == (pytest.approx(128 ** (1 / 3) / 2), (0.5, 16.0), True)
    assert not faster([1.0], [1.9], 2).holds


def test_sides_are_measured_in_turns():
    order = []

    def side(name):
        order.append(name)
        return {"step": [float(len(order))]}

    found = measuring.in_turns(2, lambda: side("ours"), lambda: side("theirs"))
    assert order == ["ours", "theirs"] * 2
    assert found == [{"step": [1.0, 3.0]}, {"step": [2.0, 4.0]}]


def test_the_json_holds_what_the_table_shows(tmp_path, capsys):
    report({"speed": Measured(2.0, "x", "at least 1", True, (1.5, 2.5))}, tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == {
        "speed": {"value": 2.0, "unit": "x", "aim": "at least 1", "holds": True, "spread": [1.5, 2.5], "why": ""}
    }
    assert "1.50 to 2.50" in capsys.readouterr().out


def test_the_page_says_below_a_table_why_a_row_falls_short():
    rows = {"speed": ROW, "size": ROW | {"why": ""}, "rate": ROW}
    lines = list(performance.table(rows, {"speed": 0.45}))
    assert "| speed | 0.50 x | 0.40 to 0.60 | at least 1 | **no** | 0.45 |" in lines
    assert "*speed*, *rate* fall short. Both wait." in lines
    assert "*size* falls short. The reason is not known yet." in lines


def test_the_page_names_the_machine_of_a_table_where_it_is_not_the_usual_one():
    def result(machine):
        return {"command": "python", "machine": machine, "seconds": 120, "rows": {"speed": ROW}, "before": {}}

    results = {performance.Question(str(i), f"Part {i}"): result(each) for i, each in enumerate("AAB")}
    lines = list(performance.page(results))
    assert "Machine, unless another is named: A." in lines
    assert [line for line in lines if line.startswith("`python`")] == [
        "`python`, 2 min",
        "`python`, 2 min",
        "`python`, 2 min on B",
    ]


def test_a_benchmark_that_fails_leaves_what_was_found_before(tmp_path):
    kept = tmp_path / "nothing.json"
    kept.write_text("{}")
    assert not performance.run(performance.Question("nothing_of_this_name", ""), tmp_path, quick=True)
    assert kept.read_text() == "{}"


def test_sides_that_differ_are_refused():
    assert harness.same("scores", np.ones(2), np.ones(2) + 1e-4, 1e-3) == pytest.approx(1e-4)
    for other in (np.ones(2) + 1, np.full(2, np.nan)):
        with pytest.raises(SystemExit, match="scores: the sides differ"):
            harness.same("scores", np.ones(2), other, 1e-3)


def test_every_call_is_prepared_and_the_preparation_is_not_counted():
    order = []
    spent = measuring.seconds(
        lambda: order.append("run"), 2, prepare=lambda: (order.append("prepare"), time.sleep(0.2))
    )
    assert order == ["prepare", "run"] * 3 and len(spent) == 2
    assert max(spent) < 0.1


def test_memory_of_a_program_is_what_stands_beside_its_arguments():
    squares, thin = jax.jit(lambda x: jnp.sin(x @ x.T).sum(0)), jnp.ones((1024, 8))
    assert 4 * 1024**2 <= harness.memory(squares, thin) < 3 * 4 * 1024**2


def test_memory_is_the_height_of_a_call_and_not_what_stays():
    size = 100 << 20
    # Can be a little less, because pages that were already resident are reused.
    assert 0.8 * size < measuring.memory(lambda: np.ones(size, np.uint8).sum()) < 1.5 * size


def test_a_part_that_takes_too_long_is_ended_and_has_no_rows():
    assert gpu.run(["sh", "-c", "sleep 60"], dict(os.environ), 0.2) is None


def test_parts_by_name_leave_the_rows_of_the_others(tmp_path, monkeypatch):
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"step": ROW}))
    rate = "card, bf16 matrix products"
    monkeypatch.setattr(
        gpu, "run", lambda command, *_: {rate: Measured(9.0, "TFLOP/s", "", "benchmarks.card" in command)}
    )
    monkeypatch.setattr(sys, "argv", ["gpu", "--only", "card", "--json", str(file)])
    before = signal.getsignal(signal.SIGTERM)
    try:
        gpu.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    rows = json.loads(file.read_text())
    assert rows["step"] == ROW
    assert rows[rate]["holds"]


def test_rates_stand_as_shares_of_the_cards_too():
    rows = gpu.shares({"step": Measured(50.0, "TFLOP/s", "", True), "tokens": Measured(9.0, "", "", True)}, 200.0)
    assert {name: row.value for name, row in rows.items()} == {"step, of the card's products": 25.0}
