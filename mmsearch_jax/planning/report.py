"""Output of plans: rich tables and JSON. Each column says whether it is compiled, counted or estimated."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mmsearch_jax.distributed.chips import GIB
from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.planning.analyse import Plan, hand_arguments
from mmsearch_jax.planning.memory import hand_count
from mmsearch_jax.planning.roofline import KERNEL_EFFICIENCY, seconds_of
from mmsearch_jax.planning.stage import Assumed, StageEstimate

NOTES = (
    "compiled: by the chips' own compiler, from the actual program. counted: in the compiled program's instructions. "
    "estimate: from the chip's published rates, if everything overlaps: a lower bound of the time, an upper bound of MFU. "
    f"cycles: the compiler's estimate of all instructions; attention kernels at {KERNEL_EFFICIENCY:.0%} of the peak (assumed)."
)
GPU_NOTES = (
    "GPUs: compiled for an equal number of CPU devices, with attention in its CPU form, so memory, bytes and times are rough; "
    "FLOPs and collectives are those of the program."
)


def print_plans(plans: Sequence[Plan], console: Console) -> None:
    """Memory, costs and collectives of each program."""
    chip = plans[0].topology.chip
    where = f"{plans[0].topology.name}, {plans[0].topology.num_chips} chips"
    memory = Table(title=f"HBM per device on {where}, GiB (compiled)", title_justify="left")
    for name in (
        "program",
        "mesh",
        "arguments",
        "by hand",
        "temporaries",
        "output",
        "code",
        "total",
        "peak",
        "of",
        "fits",
    ):
        memory.add_column(name, justify="left" if name in ("program", "mesh") else "right")
    for plan in plans:
        held = plan.memory
        parts = [held.arguments, held.temporaries, held.output, held.code] if held else [None] * 4
        shown = [_gib(part) for part in parts]
        memory.add_row(
            plan.program.name,
            mesh_text(plan),
            shown[0],
            _gib(hand_arguments(plan.program)),
            *shown[1:],
            _gib(plan.needed),
            _gib(held.peak if held else None),
            _gib(plan.available),
            "yes" if plan.fits else "[red]no",
        )
    console.print(memory)
    costs = Table(title=f"One run of each program on {where}", title_justify="left")
    for name, origin in (
        ("program", ""),
        ("TFLOP/device", "counted"),
        ("GB HBM/device", "counted"),
        ("ms compute", "estimate"),
        ("ms cycles", "compiler"),
        ("ms HBM", "estimate"),
        ("ms ICI" if chip.dims else "ms links", "estimate"),
        ("ms network", "estimate"),
        ("bound", "estimate"),
        ("MFU", "estimate"),
        ("tokens/s/chip", "estimate"),
        ("compile s", "measured"),
    ):
        costs.add_column(f"{name}\n{origin}", justify="left" if name in ("program", "bound") else "right")
    for plan in plans:
        if plan.costs and plan.roofline:
            line = plan.roofline
            costs.add_row(
                plan.program.name,
                f"{plan.costs.flops / 1e12:.2f}",
                f"{plan.costs.bytes / 1e9:.1f}",
                *(f"{1e3 * value:.1f}" for value in (line.compute, line.cycles, line.hbm, line.ici, line.network)),
                line.bound,
                f"{plan.mfu:.0%}" if plan.mfu else "-",
                f"{plan.tokens_per_second_per_chip:,.0f}" if plan.tokens_per_second_per_chip else "-",
                f"{plan.compile_seconds:.0f}",
            )
    console.print(costs)
    traffic = Table(title="Collectives of one run, per device (counted; time: estimate)", title_justify="left")
    for name in ("program", "kind", "devices", "count", "GB sent", "ms", "largest"):
        traffic.add_column(name, justify="left" if name in ("program", "kind", "largest") else "right")
    for plan in plans:
        for row in collectives(plan):
            traffic.add_row(
                plan.program.name,
                row["kind"],
                str(row["devices"]),
                f"{row['count']:,.0f}",
                f"{row['bytes_sent'] / 1e9:.2f}",
                f"{1e3 * row['seconds']:.1f}",
                row["largest"],
            )
    if traffic.row_count:
        console.print(traffic)
    for plan in plans:
        if plan.costs and plan.costs.unknown:
            console.print(f"{plan.program.name}: unknown cost of {', '.join(plan.costs.unknown)}")
    console.print(NOTES if chip.dims else f"{NOTES} {GPU_NOTES}", style="dim")


def print_stages(stages: Sequence[StageEstimate], assumed: Assumed, console: Console) -> None:
    """Prints each stage's time per step, samples per day and memory."""
    table = Table(title="A step of each stage (estimate)", title_justify="left")
    for name in ("stage", "s learning", "s rollouts", "samples/day", "steps", "hours", "$", "GiB held together", "of"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in stages:
        day = f"{stage.samples_per_day:,.0f}" if stage.samples_per_day else "-"
        table.add_row(
            stage.stage,
            _seconds(stage.learn_seconds),
            _seconds(stage.rollout_seconds),
            day,
            f"{stage.num_steps:,}",
            "-" if stage.hours is None else f"{stage.hours:,.1f}",
            "-" if stage.dollars is None else f"{stage.dollars:,.0f}",
            _gib(stage.held),
            _gib(stage.available),
        )
    console.print(table)
    console.print(
        f"samples of {assumed.sample_tokens} tokens, {assumed.sampled_tokens} of them sampled (assumed: --sample-tokens, "
        "--sampled-tokens); without tools, judge and data. "
        + (f"$: at {assumed.price:g} a device and hour" if assumed.price else "$: give --price, per device and hour"),
        style="dim",
    )


def print_settings(found: Sequence[dict[str, Any]], topology: Topology, console: Console) -> None:
    """Prints what `--search` compiled: each setting's overrides and the records of its plans."""
    table = Table(title=f"The best settings on {topology.name}", title_justify="left")
    for name in ("setting", "GiB (compiled)", "of", "tokens/s/chip (estimate)", "MFU (estimate)", "bound"):
        table.add_column(name, justify="left" if name in ("setting", "bound") else "right")
    for setting in found:
        plans = setting["plans"]
        needed = max(plan["memory"]["needed"] for plan in plans)
        fast = ("does not fit", "-", "-")
        if setting["mfu"]:
            fast = (f"{setting['tokens_per_second_per_chip']:,.0f}", f"{setting['mfu']:.0%}", setting["bound"])
        table.add_row(
            " ".join(f"--config.{key}={value}" for key, value in setting["overrides"].items()),
            f"{needed / GIB:.1f}",
            f"{plans[0]['memory']['available'] / GIB:.1f}",
            *fast,
        )
    console.print(table)
    console.print(NOTES, style="dim")


def mesh_text(plan: Plan) -> str:
    """The axes larger than one, such as "fsdp 8, tensor 2"."""
    sizes = plan.program.mesh.shape
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one device"


def collectives(plan: Plan) -> list[dict[str, Any]]:
    """Collectives by kind and group size, the slowest first."""
    if plan.costs is None:
        return []
    devices = list(plan.program.mesh.devices.flat)
    grouped: dict[tuple[str, int], list[Any]] = collections.defaultdict(list)
    for each in plan.costs.collectives:
        if len(each.group) > 1:
            grouped[each.kind, len(each.group)].append(each)
    rows = []
    for (kind, size), members in grouped.items():
        largest = max(members, key=lambda each: each.payload)
        rows.append(
            {
                "kind": kind,
                "devices": size,
                "count": sum(each.count for each in members),
                "bytes_sent": sum(each.count * each.sent for each in members),
                "seconds": sum(each.count * seconds_of(each, plan.topology, devices) for each in members),
                "largest": largest.shape,
                "largest_bytes": largest.payload,
            }
        )
    return sorted(rows, key=lambda row: -row["seconds"])


def record(plan: Plan) -> dict[str, Any]:
    """A plan as JSON; bytes, FLOPs and seconds are those of one run on one device."""
    made: dict[str, Any] = {
        "program": plan.program.name,
        "topology": plan.topology.name,
        "chips": plan.topology.num_chips,
        "mesh": dict(plan.program.mesh.shape),
        "devices": plan.devices,
        "runs_per_step": plan.program.times,
        "fits": plan.fits,
        "compile_seconds": plan.compile_seconds,
        "compiled_for": "the chip" if plan.topology.is_tpu else "CPU devices instead of GPUs",
        "memory": {
            "needed": plan.needed,
            "available": plan.available,
            "arguments_by_hand": hand_arguments(plan.program),
        },
        "model_flops": plan.program.work.model,
        "expected_flops": plan.program.work.executed or None,
    }
    if plan.memory is not None:
        made["memory"] |= {
            "arguments": plan.memory.arguments,
            "temporaries": plan.memory.temporaries,
            "output": plan.memory.output,
            "code": plan.memory.code,
            "peak": plan.memory.peak,
        }
    if plan.program.learner is not None and plan.program.learns:
        count = hand_count(plan.program.learner)
        made["memory"] |= {"by_hand": vars(count) | {"total": count.total}}
    if plan.costs is not None and plan.roofline is not None:
        made |= {
            "flops": plan.costs.flops,
            "bytes": plan.costs.bytes,
            "collectives": collectives(plan),
            "kernels": plan.costs.kernels,
            "unknown": list(plan.costs.unknown),
            "estimate": {
                "compute_seconds": plan.roofline.compute,
                "cycles_seconds": plan.roofline.cycles,
                "hbm_seconds": plan.roofline.hbm,
                "ici_seconds": plan.roofline.ici,
                "network_seconds": plan.roofline.network,
                "seconds": plan.roofline.seconds,
                "seconds_without_overlap": plan.roofline.seconds_without_overlap,
                "bound": plan.roofline.bound,
                "mfu": plan.mfu,
                "tokens_per_second_per_chip": plan.tokens_per_second_per_chip,
            },
        }
    return made


def _gib(value: float | None) -> str:
    return "-" if value is None else f"{value / GIB:.2f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
