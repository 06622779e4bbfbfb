"""`mmsearch eval`: its arguments and its printed table."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command, SetSetting
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.commands import EvaluationSettings

    return EvaluationSettings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        action=SetSetting,
        const="checkpoint",
        metavar="DIR",
        help="a policy directory, a Hugging Face directory, or a LoRA adapter (config.checkpoint)",
    )
    parser.add_argument(
        "--rows",
        action=SetSetting,
        const="rows.path",
        metavar="FILE",
        help="ask the questions of your own file of rows instead of the benchmarks (config.rows.path)",
    )
    parser.add_argument(
        "--name",
        action=SetSetting,
        const="rows.name",
        metavar="NAME",
        help="with --rows: the set's name in the results (config.rows.name; default: the file's name)",
    )
    parser.add_argument("--shard", metavar="I/N", help="ask only the I-th of N parts of the questions (from 0)")
    parser.add_argument(
        "--rejudge",
        action="store_true",
        help="do not run the policy: judge, score and merge the existing samples (also after the last shard)",
    )


def _check_arguments(options: argparse.Namespace) -> None:
    from mmsearch_jax.evaluation.samples import parse_shard

    if options.shard:
        parse_shard(options.shard)


def _run(options: argparse.Namespace) -> None:
    import jax

    from mmsearch_jax.evaluation.samples import Shard, parse_shard
    from mmsearch_jax.evaluation.terminal_tables import print_benchmarks, print_table
    from mmsearch_jax.jobs import evaluation

    settings, workdir = options.settings, options.workdir
    own = Shard(jax.process_index(), jax.process_count())
    shard = parse_shard(options.shard) if options.shard else own
    if options.rejudge:
        done = evaluation.conclude_runs(settings, workdir)
    elif settings.sets:
        done = evaluation.run_suite(settings, workdir, shard)
    else:
        done = evaluation.Suite([evaluation.run_eval(settings, workdir, shard=shard)], {})
    if own.count > 1 and not options.rejudge:
        merged = evaluation.all_processes_done(settings, workdir)
        if merged is None:
            return  # Only the first process has it.
        done = evaluation.Suite(merged.summaries, done.missing)
    if settings.sets:
        print_benchmarks(*done)
    else:
        print_table(done.summaries)


COMMAND = Command(
    "eval",
    "Evaluates a policy on one benchmark or many, and prints the table.\n"
    "Modes: policy (tools by tags), prompted (the same, untrained), direct (no tools), rag (fixed workflow).\n"
    "Writes summary.json and samples.jsonl (whole trajectories) below eval/<name>; the same command resumes after a kill.",
    _run,
    (
        "mmsearch eval --workdir runs/eval --checkpoint runs/grpo/policies/grpo --config.eval.name=grpo",
        "mmsearch eval --workdir runs/eval --config.eval.mode=direct --config.eval.name=direct",
        "mmsearch eval --workdir runs/eval --config.eval.allow_crop=false --config.eval.name=no_crop",
        "mmsearch eval --config configs/eval/deepmmsearch.py --checkpoint runs/grpo/policies/grpo --workdir runs/eval",
        "mmsearch eval --rows data/mine.jsonl --name mine --config.tools.url=http://127.0.0.1:8765 --workdir runs/eval",
        "mmsearch eval --config configs/eval/deepmmsearch.py --workdir runs/eval --rejudge \\\n"
        "      --config.judge.url=http://localhost:8000/v1 --config.judge.model=NAME",
    ),
    _add_arguments,
    _settings,
    config="eval/miniworld.py",
    workdir=True,
    processes=True,
    check_arguments=_check_arguments,
    resumes="the last logged answer",
)
