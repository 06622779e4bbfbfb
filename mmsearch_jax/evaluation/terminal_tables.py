"""The tables in the terminal: the mini-world's evaluations, a run over benchmarks, a comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

KIND_NAMES = {"visual": "visual", "whole_image": "whole image", "crop": "crop", "two_hop": "two-hop"}


# Widths are chosen so that a table fits a terminal of 80 columns, with two spaces between columns.
_HEADS = (
    "n",
    "accu-\nracy",
    "95 %",
    "visual",
    "whole\nimage",
    "crop",
    "two-\nhop",
    "needs\nsearch",
    "calls",
    "need-\nless",
)
_RUN_HEADS = ("n", "metric", "score", "95 %", "judge", "kappa", "calls", "need-\nless")
_PAIR_HEADS = ("n", "first", "second", "points", "95 %", "only\nfirst", "only\nsecond", "p")
_SEARCH_USE = "calls: searches per question;\nneedless: % of the questions that need no search on which it searched"


def comparison(summaries: Sequence[dict[str, Any]]) -> Table:
    """Accuracy overall and by kind of question, and search use."""
    table = _table(
        "Real world, unseen in training",
        f"accuracy in %; needs search: not answerable from the image alone;\n{_SEARCH_USE}",
        "run",
        _HEADS,
    )
    for summary in summaries:
        groups = [*(summary["by_kind"][kind] for kind in KIND_NAMES), summary["search_required"]]
        table.add_row(
            escape(summary["name"]),
            str(summary["n"]),
            percent(summary["accuracy"]) + _mark(summary),
            _span(summary["ci95"]),
            *(percent(group["accuracy"]) if group["n"] else "-" for group in groups),
            f"{summary['searches_per_question']:.2f}",
            percent(summary["needless_search_rate"]) if summary["search_free"]["n"] else "-",
        )
    return table


def benchmark_table(summaries: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> Table:
    """One line per benchmark: first those that ran, then those that did not."""
    table = _table(
        "Benchmarks",
        "score: the benchmark's own figure in %, with the interval of the mean;\n"
        "judge: accuracy by the LLM judge in %; kappa: its agreement with the\nmetric; "
        f"{_SEARCH_USE}\n*: incomplete",
        "benchmark",
        _RUN_HEADS,
    )
    for summary in summaries:
        judge, needless = summary["judge"], summary["tool_use"]["needless"]
        table.add_row(
            escape(summary["benchmark"]) + ("" if summary["complete"] else "*"),
            str(summary["n"]),
            # Words can be wrapped.
            escape(summary["metric"]["name"].replace("_", " ")),
            percent(summary["metric"]["score"]) + _mark(summary),
            _span(summary["ci95"]),
            percent(judge["accuracy"]) if judge and judge["n"] else "-",
            f"{judge['agreement']['kappa']:.2f}" if judge and judge["n"] else "-",
            f"{summary['searches_per_question']:.2f}",
            percent(needless["share"]) if needless["n"] else "-",
        )
    for name in missing:
        table.add_row(escape(name), "-", "[dim]missing[/dim]")
    return table


def print_benchmarks(summaries: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> None:
    """Prints the table, and below it how to get the missing sets."""
    console = Console()
    console.print(benchmark_table(summaries, missing))
    _print_warnings(console, summaries, "benchmark")
    for name, why in missing.items():
        console.print(f"{escape(name)}: {escape(why)}", style="dim", soft_wrap=True)


def difference_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """One line per benchmark and scorer: both accuracies, their difference with its interval, McNemar's p."""
    table = _table(
        "Second minus first, on the same questions",
        "accuracy by the benchmark's metric, or by the judge, in %; points: their\n"
        "difference, 95 % by the paired bootstrap over images; p: McNemar, exact",
        "benchmark",
        _PAIR_HEADS,
    )
    for line in found:
        for name, each in ((line["benchmark"], line), ("  by judge", line["judge"])):
            if each:
                low, high = each["ci95"]
                table.add_row(
                    escape(name),
                    str(each["n"]),
                    *map(percent, each["accuracy"]),
                    f"{100 * each['difference']:+.1f}",
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    str(each["only_first"]),
                    str(each["only_second"]),
                    f"{p:.3f}" if (p := each["mcnemar_p"]) >= 0.001 else "<.001",
                )
    return table


def _table(title: str, caption: str, first: str, heads: Sequence[str]) -> Table:
    """An empty table: a first column of names, which are folded where the terminal is narrow, and columns of figures."""
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column(f"\n{first}", overflow="fold", min_width=8)
    for head in heads:
        text = head if "\n" in head else f"\n{head}"
        if head == "metric":
            table.add_column(text, max_width=9)
        else:
            table.add_column(text, justify="right", no_wrap=True)
    return table


def percent(share: float) -> str:
    """0.1234 -> "12.3"."""
    return f"{100 * share:.1f}"


def print_table(summaries: Sequence[dict[str, Any]]) -> None:
    """Prints the comparison, and what must be read beside it."""
    console = Console()
    console.print(comparison(summaries))
    _print_warnings(console, summaries, "name")


def _print_warnings(console: Console, summaries: Sequence[Mapping[str, Any]], label: str) -> None:
    for summary in summaries:
        if summary.get("warning"):
            console.print(f"{escape(summary[label])}: {escape(summary['warning'])}", style="bold red", soft_wrap=True)


def _mark(summary: Mapping[str, Any]) -> str:
    """ "!" beside a figure with a warning."""
    return "!" if summary.get("warning") else ""


def _span(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * low:.0f}-{100 * high:.0f}"
