"""The tables in the terminal: they fit 80 columns, and no two heads run together."""

import io
import re

import pytest
from rich.console import Console

from mmsearch_jax.evaluation.terminal_tables import benchmark_table, comparison, difference_table

GROUP = {"n": 50, "accuracy": 1.0}
SUMMARY = {
    "name": "grpo_no_crop", "n": 300, "accuracy": 0.576, "ci95": [0.525, 0.631], "search_required": GROUP, "search_free": GROUP,
    "by_kind": dict.fromkeys(("visual", "whole_image", "crop", "two_hop"), GROUP), "searches_per_question": 12.25,
    "needless_search_rate": 1.0, "benchmark": "a_okvqa_choices", "complete": True,
    "metric": {"name": "multiple_choice", "score": 0.475}, "judge": {"n": 2000, "accuracy": 1.0, "agreement": {"kappa": 0.81}},
    "tool_use": {"needless": {"n": 3, "share": 1.0}},
}  # fmt: skip
PAIR = {
    "benchmark": "a_okvqa_choices", "accuracy": [0.567, 1.0], "n": 2000, "difference": 0.4330, "ci95": [-0.053, 0.067],
    "only_first": 123, "only_second": 135, "mcnemar_p": 1.23e-5,
}  # fmt: skip
TABLES = {
    "comparison": lambda: comparison([SUMMARY]),
    "benchmarks": lambda: benchmark_table([{**SUMMARY, "n": 2000}], {"encyclopedic_vqa": "not there"}),
    "difference": lambda: difference_table([{**PAIR, "judge": PAIR}]),
}


def printed(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_columns_keep_two_spaces_and_nothing_is_cut(name, width):
    table = TABLES[name]()
    lines = printed(table, width)
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    # Every head stands in the lines above the rule, as a word of its own: at least two spaces around it.
    heads = [part for column in table.columns for part in str(column.header).split("\n") if part]
    found = [part for line in lines[1:rule] for part in re.split(r" {2,}", line.strip()) if part]
    assert sorted(found) == sorted(heads)
    # So do the values of the first row.
    row = re.split(r" {2,}", lines[rule + 1].strip())
    assert len(row) == len(table.columns)


def test_a_difference_is_in_points_with_its_interval_and_the_judge_below():
    lines = printed(TABLES["difference"](), 80)
    assert any("+43.3" in line and "-5.3 to 6.7" in line and "<.001" in line for line in lines)
    assert any(line.startswith("  by judge") for line in lines)
