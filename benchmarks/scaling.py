"""Models of four sizes on slices of up to 4,096 chips: what fits, speed, scaling. Writes docs/scaling.md and its figure.

    python -m benchmarks.scaling --out docs/scaling.md
    python -m benchmarks.scaling --out docs/scaling.md --compiled plan1.json plan2.json

Every cell is a closed-form estimate: the best mesh by the hand count of memory and the estimate of time in `planning.search`.
`--compiled` adds the compiler's figures for some programs (files of `mmsearch plan --json`).
"""

# ruff: noqa: E501 (the page's text)

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.planning.devices import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import matplotlib
import tqdm

from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.config_files import load
from mmsearch_jax.distributed.chips import GIB
from mmsearch_jax.distributed.topologies import Topology, parse
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.planning import abstract, search
from mmsearch_jax.planning.model_flops import Work
from mmsearch_jax.planning.sizes import SIZES
from mmsearch_jax.settings.commands import GRPOSettings, LearnerSettings, SFTSettings

KINDS = ("SFT LoRA", "SFT full", "GRPO")
SLICES = (
    "v5e:4x4",
    "v5e:16x16",
    "v6e:4x4",
    "v6e:16x16",
    "v5p:2x2x4",
    "v5p:4x8x8",
    "v5p:16x16x16",
    "7x:2x2x4",
    "7x:4x8x8",
    "7x:16x16x16",
)
MULTISLICE = {"v5e:16x16": 16, "v6e:16x16": 16}
"""Slices joined to 4,096 chips over the data-centre network: replicas that all-reduce the gradients of the trained parameters."""
STRONG_ROWS = 512
_TRIED = 10
SAMPLE_TOKENS, SAMPLED_TOKENS = 3000, 800


@dataclasses.dataclass(frozen=True)
class Cell:
    """The best settings of one model and kind on a slice, or none."""

    size: str
    kind: str
    topology: Topology
    slices: int
    setting: dict[str, Any] | None
    memory: float
    tokens_per_second_per_chip: float
    mfu: float
    samples_per_day: float | None

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.topology.num_chips * self.slices


def main() -> None:
    """Runs the command."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/scaling.md"))
    parser.add_argument("--compiled", type=Path, nargs="*", default=(), help="files of mmsearch plan --json")
    options = parser.parse_args()
    work = [(size, kind, name) for size in SIZES for kind in KINDS for name in SLICES]
    cells: list[Cell] = []
    for size, kind, name in tqdm.tqdm(work, desc="cells", unit="cell"):
        cells += cells_of(size, kind, parse(name))
    strong = [(name, strong_scaling("7b", name)) for name in tqdm.tqdm(SLICES, desc="strong scaling", unit="slice")]
    figure = options.out.with_suffix(".svg")
    draw(cells, strong, figure)
    options.out.write_text(page(cells, strong, compiled_rows(options.compiled), figure.name), encoding="utf-8")
    print(f"{len(cells)} cells: {options.out}, {figure}")


def cells_of(size: str, kind: str, topology: Topology) -> Iterator[Cell]:
    """The cell of a slice, and of several joined slices if there are any."""
    config, stage = config_of(kind)
    model = SIZES[size]
    fitting = search.candidates(config, stage, model, topology, remats=("full",), sequences=(1,))
    tried = [
        _measured(config, stage, model, topology, each)
        for each in itertools.islice(fitting, _TRIED if stage == "grpo" else 1)
    ]
    best = max(tried, key=lambda one: one.samples_per_second or 0.0, default=None)
    for slices in (1, *([MULTISLICE[topology.name]] if topology.name in MULTISLICE else [])):
        if best is None:
            yield Cell(size, kind, topology, slices, None, 0, 0, 0, None)
            continue
        exchange = 2 * best.trained / topology.chip.network if slices > 1 else 0.0
        seconds, chips = best.learn_seconds + exchange, topology.num_chips
        day = None
        if best.samples_per_second:
            samples = best.candidate.tokens / SAMPLE_TOKENS
            day = 86400 * slices * samples / (samples / best.samples_per_second + exchange)
        yield Cell(
            size,
            kind,
            topology,
            slices,
            best.candidate.overrides,
            best.candidate.memory.total,
            best.candidate.tokens / seconds / chips,
            best.operations / (seconds * chips * topology.chip.flops),
            day,
        )


@dataclasses.dataclass(frozen=True)
class _Measured:
    """A candidate with the seconds of its step; no samples if the sampler does not fit beside the learner."""

    candidate: search.SettingCandidate
    learn_seconds: float
    operations: float
    trained: float
    samples_per_second: float | None


def _measured(
    config: LearnerSettings, stage: str, model: ModelConfig, topology: Topology, candidate: search.SettingCandidate
) -> _Measured:
    changed = candidate.config(config)
    made = abstract.learner(changed, stage, model, abstract.mesh_without_devices(changed, topology))
    learning, scoring = Work.learning(made), Work.scoring(made)
    trained, samples = abstract.bytes_per_chip(made.state.params), candidate.tokens / SAMPLE_TOKENS
    if stage == "sft":
        return _Measured(candidate, candidate.seconds, learning.model, trained, samples / candidate.seconds)
    # The reference scores each batch once more.
    seconds = candidate.seconds * (1 + scoring.executed / learning.executed)
    sampling = rollout_seconds(config, model, topology, candidate.memory.total, samples)
    rate = samples / (seconds + sampling) if sampling else None
    return _Measured(candidate, seconds, learning.model + scoring.model, trained, rate)


def config_of(kind: str) -> tuple[LearnerSettings, str]:
    """The 7B's config of the kind, and its stage; the model is chosen elsewhere."""
    stage = "grpo" if kind == "GRPO" else "sft"
    overrides = ["--config.lora.rank=0"] if kind == "SFT full" else []
    tree = GRPOSettings if stage == "grpo" else SFTSettings
    return load(tree, f"configs/{stage}_qwen2_5_vl_7b.py", overrides).settings, stage


def rollout_seconds(
    config: LearnerSettings, model: ModelConfig, topology: Topology, learner_bytes: float, samples: float
) -> float | None:
    """Every host samples its share in the memory left by the learner; each token reads the weights and half-full caches."""
    chip, host, text = topology.chip, topology.host, model.text
    weights = 2 * (
        text.num_hidden_layers
        * text.hidden_size
        * (
            2 * text.num_attention_heads * text.head_dim
            + 2 * text.num_key_value_heads * text.head_dim
            + 3 * text.intermediate_size
        )
        + (1 if text.tie_word_embeddings else 2) * text.vocab_size * text.hidden_size
    )
    a_slot = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * config.sized_engine.max_length
    room = host.num_chips * (search.USABLE * chip.hbm - learner_bytes * chip.devices) - weights
    slots = min(config.engine.num_slots, int(room // a_slot))
    if slots < 4:
        return None
    step = (weights + slots * a_slot / 2) / (host.num_chips * chip.hbm_bandwidth)
    share = samples / topology.num_hosts
    fed = share * (SAMPLE_TOKENS - SAMPLED_TOKENS) * weights / (0.4 * chip.flops * host.num_chips)
    return share * SAMPLED_TOKENS * step / slots + fed


def strong_scaling(size: str, name: str) -> float | None:
    """Tokens per second of SFT LoRA on a batch of constant size; None if it cannot be split over the slice."""
    config, stage = config_of("SFT LoRA")
    topology = parse(name)
    found = search.candidates(
        config, stage, SIZES[size], topology, remats=("full",), sequences=(1, 2, 4), rows=(STRONG_ROWS,)
    )
    best = next(found, None)
    return best.tokens / best.seconds if best else None


def compiled_rows(files: Sequence[Path]) -> list[str]:
    """The compiler's figures beside the estimate for the same program."""
    rows = []
    for file in files:
        for plan in json.loads(file.read_text())["plans"]:
            hand = plan["memory"].get("by_hand")
            if not hand:
                continue
            peak, total = plan["memory"]["peak"], plan["memory"]["needed"]
            flops = (
                plan["flops"] * plan["devices"] / plan["expected_flops"]
                if plan.get("flops") and plan["expected_flops"]
                else None
            )
            mesh = ", ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1)
            line = plan.get("estimate") or {}
            rows.append(
                f"| {plan['program']} | {plan['topology']} | {mesh} | {hand['total'] / GIB:.2f} | {peak / GIB:.2f} | {total / GIB:.2f} | "
                f"{f'{flops:.3f}' if flops else '-'} | {_number(line.get('tokens_per_second_per_chip'))} | {line.get('bound', '-')} |"
            )
    return rows


def page(
    cells: Sequence[Cell], strong: Sequence[tuple[str, float | None]], compiled: Sequence[str], figure: str
) -> str:
    """The whole document."""
    lines = [
        "# Scaling",
        "",
        "Made by `python -m benchmarks.scaling --out docs/scaling.md`; do not edit. **All figures are estimates**, "
        'except those under "What the compiler says". Nothing here was measured on a TPU.',
        "",
        "Each cell is the best mesh and batch (one, two or four rows for each part of the mesh; remat full). Memory is counted by hand "
        f"(at most {search.USABLE:.0%} of a chip's). Time is an estimate: matrix products at {search.EFFICIENCY:.0%} of peak "
        "FLOP/s, then the collectives that the mesh implies, without overlap. Rows have 8,192 tokens (SFT) or 12,288 (GRPO), with the "
        f"images of the 7B config. Samples have {SAMPLE_TOKENS} tokens, of which GRPO samples {SAMPLED_TOKENS}. A GRPO step scores each "
        "batch with the reference, trains on it, and samples on every host beside the learner; tools and judge take no time. 4,096 "
        "chips of v5e and v6e are 16 slices over the data-centre network. `mmsearch plan` gives more detail for one cell "
        "(docs/planning.md).",
        "",
    ]
    for kind in KINDS:
        lines += [
            f"## {kind}",
            "",
            "| model | slice | chips | mesh | GiB a device | tokens/s/chip | MFU | samples/day |",
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
        lines += [_row(cell) for cell in cells if cell.kind == kind] + [""]
    lines += ["## Strong and weak scaling", "", f"![Scaling]({figure})", ""]
    lines += [
        f"Strong: the 7B's SFT with LoRA on {STRONG_ROWS} rows a step on every slice. Weak: the cells of the tables, whose batch grows "
        "with the slice. A dash: no mesh of the slice holds that many rows at once.",
        "",
        "| slice | tokens/s, strong | tokens/s, weak |",
        "| --- | --- | --- |",
    ]
    weak = {cell.topology.name: cell for cell in cells if (cell.size, cell.kind, cell.slices) == ("7b", "SFT LoRA", 1)}
    for name, tokens in strong:
        cell = weak[name]
        lines.append(f"| {name} | {_number(tokens)} | {_number(cell.tokens_per_second_per_chip * cell.chips)} |")
    lines += ["", "## What the compiler says", ""]
    if compiled:
        lines += [
            "The 7B's programs compiled for the slice (`mmsearch plan --json`). The peak is the memory that arrays fill at one time; "
            "the total is the memory that the program reserves. FLOPs are counted from the compiled program and divided by the "
            "analytic count. Tokens/s are its roofline, an upper bound.",
            "",
            "| program | slice | mesh | GiB by hand | GiB, compiler's peak | GiB, compiler's total | FLOPs, counted / analytic | tokens/s/chip | bound |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *compiled,
        ]
    else:
        lines.append("No cell was compiled for this page.")
    return "\n".join(lines) + "\n"


def _row(cell: Cell) -> str:
    name = f"{cell.slices} x {cell.topology.name}" if cell.slices > 1 else cell.topology.name
    if cell.setting is None:
        return f"| {cell.size} | {name} | {cell.chips:,} | does not fit | - | - | - | - |"
    axes = {
        key.removeprefix("mesh."): value for key, value in cell.setting.items() if key.startswith("mesh.") and value > 1
    }
    rows = next(value for key, value in cell.setting.items() if key.endswith(".rows"))
    mesh = ", ".join(f"{axis} {value}" for axis, value in axes.items())
    day = _number(cell.samples_per_day) if cell.samples_per_day else "no room for the sampler"
    return (
        f"| {cell.size} | {name} | {cell.chips:,} | {mesh}; {rows * cell.slices:,} rows | {cell.memory / GIB:.1f} | "
        f"{_number(cell.tokens_per_second_per_chip)} | {cell.mfu:.0%} | {day} |"
    )


def _number(value: float | None) -> str:
    return f"{value:,.0f}" if value else "-"


def draw(cells: Sequence[Cell], strong: Sequence[tuple[str, float | None]], path: Path) -> None:
    """Figure of tokens per second over chips: strong and weak scaling of the 7B, for each kind of chip."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "scaling"
    drawn, axes = pyplot.subplots(figsize=(7, 4))
    for number, chip in enumerate(("v5e", "v6e", "v5p", "7x")):
        weak = [
            c for c in cells if (c.size, c.kind) == ("7b", "SFT LoRA") and c.topology.chip.name == chip and c.setting
        ]
        axes.plot(
            [c.chips for c in weak],
            [c.tokens_per_second_per_chip * c.chips for c in weak],
            "o-",
            color=f"C{number}",
            label=f"{chip}, weak",
        )
        fixed = [(parse(n).num_chips, tokens) for n, tokens in strong if n.startswith(f"{chip}:") and tokens]
        axes.plot(*zip(*fixed, strict=True), "s--", color=f"C{number}", label=f"{chip}, strong ({STRONG_ROWS} rows)")
    axes.set(xscale="log", yscale="log", xlabel="chips", ylabel="tokens a second (estimate)", title="7B, SFT with LoRA")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    drawn.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(drawn)


if __name__ == "__main__":
    main()
