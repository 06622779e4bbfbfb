"""Runs all benchmarks, each in its own process, and writes docs/performance.md: python -m benchmarks.performance.

    python -m benchmarks.performance                         everything, about two hours on two cores
    python -m benchmarks.performance --quick                 the short form of each, to check that it runs; docs do not change
    python -m benchmarks.performance --only prefill vision   runs these again and keeps the last figures of the others
    python -m benchmarks.performance --only gpu              on a machine with a GPU
    python -m benchmarks.performance --page                  writes only the page, from the kept figures

The figures of each benchmark are kept in runs/performance/NAME.json, with the machine and the ratios of the previous run. The
page holds a table for each question, the reasons for rows that fall short (`why` in the benchmarks), and hot_spots.md. The exit
code is 1 if a benchmark failed, or if a row falls short without a reason.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmsearch_jax.core.command_line import Parser

_HERE = Path(__file__).parent
_RESULTS = Path("runs/performance")


class Question(NamedTuple):
    """A benchmark, the heading of its table, and the arguments of its long form."""

    module: str
    title: str
    arguments: Sequence[str] = ()


QUESTIONS = (
    Question("products", "What the CPU's matrix products allow"),
    Question("sft_step", "SFT step"),
    Question("grpo_step", "GRPO learner step"),
    Question("logprobs", "Log-prob pass"),
    Question("prefill", "Prefill"),
    Question("decode", "Decoding"),
    Question("decode_limit", "A decode step against the memory's bandwidth"),
    Question("rollout", "Rollouts with slow tools"),
    Question("vision", "Vision tower"),
    Question("data", "Image processing and input pipeline"),
    Question("data_memory", "Memory of the input pipeline", ("--rows", "100000")),
    Question("checkpoint", "Checkpoints, import and export"),
    Question("import_memory", "Memory of reading a checkpoint"),
    Question("tools_server", "Tools server"),
    Question("corpora", "Search in one's own corpus"),
    Question("image_retrieval", "Image search of the mini-world"),
    Question("grounding", "Grounding of the mini-world"),
    Question("overlap", "GRPO with slow searches"),
    Question("startup", "Start-up"),
    Question("growth", "How cost grows"),
    Question("soak", "Host memory over a long run"),
)
GPU = Question("gpu", "On a GPU")
_INTRODUCTION = """# Performance

Written by `make bench` (`python -m benchmarks.performance`): edit the benchmarks and `benchmarks/hot_spots.md`, not this page.
A ratio is our speed over the peer's, with equal weights, tokens, precision and threads, in one run; outputs are compared first.
A value is the median of the repeats, a ratio that of the geometric means; the spread is the smallest and the largest.
"before" is the ratio of the previous run."""


def main() -> None:
    """Runs the benchmarks that were asked for, writes the page, and prints what is missing."""
    known = [question.module for question in (*QUESTIONS, GPU)]
    parser = Parser(description="Runs the benchmarks and writes docs/performance.md.")
    parser.add_argument(
        "--quick", action="store_true", help="short forms; writes runs/performance/quick/performance.md"
    )
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME", help=f"some of {', '.join(known)}")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--out", type=Path, metavar="FILE", help="page to write (default: docs/performance.md)")
    options = parser.parse_args()
    folder = _RESULTS / "quick" if options.quick else _RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    asked = [] if options.page else options.only or [question.module for question in QUESTIONS]
    chosen = [question for question in (*QUESTIONS, GPU) if question.module in asked]
    failed = [question.module for question in chosen if not run(question, folder, options.quick)]
    results = {
        question: json.loads(file.read_text(encoding="utf-8"))
        for question in (*QUESTIONS, GPU)
        if (file := folder / f"{question.module}.json").is_file()
    }
    out = options.out or (folder / "performance.md" if options.quick else Path("docs/performance.md"))
    out.write_text("\n".join(page(results)) + "\n", encoding="utf-8")
    print(f"wrote {out}")
    unexplained = [
        name
        for result in results.values()
        for name, row in result["rows"].items()
        if not row["holds"] and not row.get("why")
    ]
    for what, names in (("failed", failed), ("fall short without a reason", unexplained)):
        if names:
            print(f"{what}: {', '.join(names)}", file=sys.stderr)
    sys.exit(bool(failed or (unexplained and not options.quick)))


def run(question: Question, folder: Path, quick: bool) -> bool:
    """Runs a benchmark and keeps its figures; False if it failed (without new figures, the earlier ones stay)."""
    file, rows = folder / f"{question.module}.json", folder / f"{question.module}.rows.json"
    arguments = ("--quick",) if quick else tuple(question.arguments)
    command = ["python", "-m", f"benchmarks.{question.module}", *arguments]
    print(f"\n{' '.join(command)}", flush=True)
    rows.unlink(missing_ok=True)
    began = time.monotonic()
    done = subprocess.run([sys.executable, *command[1:], "--json", str(rows)], check=False)
    if not rows.is_file():
        return False
    before = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else {}
    record = {
        "command": " ".join(command),
        "machine": _machine(),
        "seconds": round(time.monotonic() - began),
        "rows": json.loads(rows.read_text(encoding="utf-8")),
        "before": {name: row["value"] for name, row in before.items() if row["unit"] == "x"},
    }
    rows.unlink()
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return done.returncode == 0


def page(results: dict[Question, dict[str, Any]]) -> Iterator[str]:
    """The lines of the page."""
    yield _INTRODUCTION
    usual = collections.Counter(result["machine"] for result in results.values()).most_common(1)
    yield from (f"Machine, unless another is named: {machine}." for machine, _ in usual)
    for question, result in results.items():
        minutes = max(1, round(result["seconds"] / 60))
        where = "" if result["machine"] == usual[0][0] else f" on {result['machine']}"
        yield from ("", f"## {question.title}", "", f"`{result['command']}`, {minutes} min{where}", "")
        yield from table(result["rows"], result["before"])
    if (timings := Path("runs/quickstart/quickstart.json")).is_file():
        seconds = json.loads(timings.read_text(encoding="utf-8"))["seconds"]
        yield from ("", "## `make quickstart` by phase", "", "| phase | seconds |", "| --- | --- |")
        yield from (f"| {phase} | {value:.0f} |" for phase, value in seconds.items())
    yield from ("", (_HERE / "hot_spots.md").read_text(encoding="utf-8").strip())


def table(rows: dict[str, dict[str, Any]], before: dict[str, float]) -> Iterator[str]:
    """The lines of one table, then the reasons for rows that fall short."""
    yield from ("| | value | spread | aim | holds | before |", "| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        spread = " to ".join(map(_number, row["spread"])) if row.get("spread") else ""
        # A row without an aim cannot fall short.
        holds = ("yes" if row["holds"] else "**no**") if row["aim"] else ""
        past = _number(before[name]) if name in before else ""
        yield f"| {name} | {_number(row['value'])} {row['unit']} | {spread} | {row['aim']} | {holds} | {past} |"
    reasons = collections.defaultdict(list)
    for name, row in rows.items():
        if not row["holds"]:
            reasons[row.get("why") or "The reason is not known yet."].append(f"*{name}*")
    for why, names in reasons.items():
        yield from ("", f"{', '.join(names)} {'falls' if len(names) == 1 else 'fall'} short. {why}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _machine() -> str:
    # In its own process: on a GPU, JAX would keep memory that the next benchmark needs.
    code = "from benchmarks.harness import machine; print(machine())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
