"""`mmsearch eval` and `mmsearch compare`: their arguments, and what is printed. JAX is imported when one of them runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

Config = Any
"""An `ml_collections.ConfigDict`, whose values have no types that a checker could follow."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Of `eval`, besides its config and work folder."""
    command.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="a policy of ours, a Hugging Face folder, or a LoRA adapter (config.checkpoint)",
    )
    command.add_argument("--shard", metavar="I/N", help="ask the I-th of N parts of the questions (from 0)")
    command.add_argument(
        "--rejudge",
        action="store_true",
        help="ask no policy: judge, score and merge what the samples hold (also: after the last shard)",
    )


def add_compare_arguments(command: argparse.ArgumentParser) -> None:
    """Of `compare`."""
    command.add_argument("first", type=Path, help="folder of a run, such as runs/eval/eval/sft")
    command.add_argument("second", type=Path, help="and of the one to compare with it")
    command.add_argument("-o", "--out", type=Path, help="write the figures as JSON, too")


def run(config: Config, options: argparse.Namespace) -> None:
    """Evaluates, or judges anew, and prints the table."""
    if options.checkpoint:
        with config.unlocked():
            config.checkpoint = options.checkpoint
    import jax

    from mmsearch_jax.evaluation.samples import Shard, parse_shard
    from mmsearch_jax.evaluation.table import print_benchmarks, print_table
    from mmsearch_jax.jobs import evaluation as evaluating

    own = Shard(jax.process_index(), jax.process_count())
    shard = parse_shard(options.shard) if options.shard else own
    many = "benchmarks" in config
    if options.rejudge:
        done = evaluating.conclude_runs(config, options.workdir)
    elif many:
        done = evaluating.run_suite(config, options.workdir, shard)
    else:
        done = evaluating.Suite([evaluating.run_eval(config, options.workdir, shard=shard)], {})
    if own.count > 1 and not options.rejudge:
        merged = evaluating.all_processes_done(config, options.workdir)
        if merged is None:
            return  # The first process has it.
        done = evaluating.Suite(merged.summaries, done.missing)
    if many:
        print_benchmarks(*done)
    else:
        print_table(done.summaries)


def compare(options: argparse.Namespace) -> None:
    """Compares two runs and prints the table."""
    from rich.console import Console

    from mmsearch_jax.evaluation.compare import compare_runs
    from mmsearch_jax.evaluation.samples import write_json
    from mmsearch_jax.evaluation.table import difference_table

    found = compare_runs(options.first, options.second)
    if options.out:
        write_json(options.out, found)
    Console().print(difference_table(found))
