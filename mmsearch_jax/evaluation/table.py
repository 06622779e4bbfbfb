"""The table that people read: one line an evaluation, printed in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

KIND_NAMES = {"visual": "visual", "whole_image": "whole image", "crop": "crop", "two_hop": "two-hop"}


def comparison(summaries: Sequence[dict[str, Any]]) -> Table:
    """Accuracy overall and by kind of question, and the use of searches."""
    table = Table(title="Real world, unseen in training", caption="accuracy in %, with its 95 % interval")
    columns = ["n", "accuracy", *KIND_NAMES.values(), "search-required", "searches / question", "needless searches"]
    table.add_column("evaluation", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for summary in summaries:
        low, high = summary["ci95"]
        table.add_row(
            summary["name"],
            str(summary["n"]),
            f"{percent(summary['accuracy'])} [{percent(low)}, {percent(high)}]",
            *(percent(summary["by_kind"][kind]["accuracy"]) for kind in KIND_NAMES),
            percent(summary["search_required"]["accuracy"]),
            f"{summary['searches_per_question']:.2f}",
            f"{percent(summary['needless_search_rate'])} %",
        )
    return table


def percent(share: float) -> str:
    """0.1234 -> "12.3"."""
    return f"{100 * share:.1f}"


def print_table(summaries: Sequence[dict[str, Any]]) -> None:
    """Prints the comparison."""
    Console().print(comparison(summaries))
