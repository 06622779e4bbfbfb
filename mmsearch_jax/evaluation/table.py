"""The table that people read: one line an evaluation, printed in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

KIND_NAMES = {"visual": "visual", "whole_image": "whole image", "crop": "crop", "two_hop": "two-hop"}


# Column heads in two lines, so that the table fits a terminal of 80 columns.
_HEADS = (
    "n", "accu-\nracy", "95 %", "visual", "whole\nimage", "crop", "two-\nhop", "needs\nsearch",
    "search-\nes each", "needless\nsearches",
)  # fmt: skip


def comparison(summaries: Sequence[dict[str, Any]]) -> Table:
    """Accuracy overall and by kind of question, and the use of searches."""
    table = Table(
        title="Real world, unseen in training",
        caption="accuracy in %; needs search: not answerable from the image alone;\n"
        "needless searches: % of the other questions on which it searched",
        box=box.SIMPLE_HEAD, show_edge=False, padding=0,
    )  # fmt: skip
    table.add_column("\nevaluation", overflow="fold", min_width=12)
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for summary in summaries:
        low, high = summary["ci95"]
        groups = [*(summary["by_kind"][kind] for kind in KIND_NAMES), summary["search_required"]]
        table.add_row(
            escape(summary["name"]),
            str(summary["n"]),
            percent(summary["accuracy"]),
            f"{100 * low:.0f}-{100 * high:.0f}",
            *(percent(group["accuracy"]) if group["n"] else "-" for group in groups),
            f"{summary['searches_per_question']:.2f}",
            percent(summary["needless_search_rate"]) if summary["search_free"]["n"] else "-",
        )
    return table


def percent(share: float) -> str:
    """0.1234 -> "12.3"."""
    return f"{100 * share:.1f}"


def print_table(summaries: Sequence[dict[str, Any]]) -> None:
    """Prints the comparison."""
    Console().print(comparison(summaries))
