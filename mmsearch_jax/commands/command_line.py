"""The command line: its parser, and the settings that it overrides. Knows no command by name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmsearch_jax import __version__
from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.command_line import Parser

_EPILOG = """\
a first run:
  mmsearch quickstart                       everything below, on one CPU in about ten minutes
  mmsearch quickstart --smoke               the same path with tiny budgets

stage by stage:
  mmsearch sft  --workdir runs/sft
  mmsearch grpo --workdir runs/grpo --config.checkpoint=runs/sft/policies/sft
  mmsearch eval --workdir runs/eval --checkpoint runs/grpo/policies/grpo
  mmsearch report runs/eval

Any setting can be given: --config.sft.num_steps=100. `mmsearch COMMAND --print-config` lists them all,
`mmsearch COMMAND --help` says more."""


def make_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the whole command line; what it parses has the commands as `commands`.

    Args:
      commands: by name, in the order in which --help lists them.
    """
    parser = Parser(
        prog="mmsearch",
        description="Teaches a vision-language model to search the web: SFT, GRPO with live search, evaluation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"mmsearch-jax {__version__}")
    parser.set_defaults(commands=commands)
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands.values():
        _add_command(parsers, command)
    return parser


def _add_command(parsers: argparse._SubParsersAction, command: Command) -> None:
    parser = parsers.add_parser(
        command.name,
        help=command.description.splitlines()[0].rstrip("."),
        description=command.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["examples:", *(f"  {example}" for example in command.examples)]),
    )
    # No default here, so that `mmsearch --debug COMMAND` is not overridden.
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    if command.settings is not None:
        named = f"configs/{command.config}" if command.config else "the defaults"
        parser.add_argument(
            "--config",
            metavar="FILE",
            help=f"config file, or FILE:TOPOLOGY (default: {named}); set values with --config.KEY=VALUE",
        )
        parser.add_argument(
            "--print-config", action="store_true", help="print every setting with its source and its meaning"
        )
    if command.config:
        parser.add_argument(
            "--compilation-cache",
            default="",
            metavar="DIR",
            help="store compiled programs there for the next start (default: $JAX_COMPILATION_CACHE_DIR, or none)",
        )
    if command.workdir:
        parser.add_argument(
            "--workdir",
            type=_directory,
            default=Path(f"runs/{command.name}"),
            metavar="DIR",
            help="work directory for metrics, checkpoints and results (default: %(default)s)",
        )
    if command.processes:
        _add_processes(parser)
    if command.add_arguments is not None:
        command.add_arguments(parser)


def _directory(text: str) -> Path:
    if not text:
        # As a variable of a script that is not set; Path would take it for the current directory.
        raise argparse.ArgumentTypeError("it is empty: give a directory")
    return Path(text)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several processes (docs/training.md)")
    group.add_argument(
        "--distributed", action="store_true", help="find the other processes in the environment (TPU pod, Slurm, GKE)"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="or give the address of process 0,")
    group.add_argument("--num-processes", type=int, metavar="N", help="the number of processes,")
    group.add_argument("--process-id", type=int, metavar="I", help="and the index of this one")
    group.add_argument(
        "--heartbeat-timeout",
        type=int,
        default=60,
        metavar="SECONDS",
        help="stop after another process has been silent for this long (default: %(default)s)",
    )


def split_overrides(command: Command, rest: Sequence[str], has_config: bool) -> tuple[list[str], list[str]]:
    """The overrides of settings among the arguments that the parser does not know, and what is wrong with the others."""
    overrides = [argument for argument in rest if argument.startswith("--config.")]
    # A word after an unknown option is its value.
    own = [word for before, word in zip(["", *rest], rest, strict=False) if not _is_option(before) or _is_option(word)]
    problems = [
        f"unknown argument '{argument}': see mmsearch {command.name} --help"
        for argument in own
        if not argument.startswith("--config.")
    ]
    if overrides and not has_config:
        problems += [f"mmsearch {command.name} takes no config, so remove {override}" for override in overrides]
    return overrides, problems


def _is_option(word: str) -> bool:
    return word.startswith("--") and not word.startswith("--config.") and "=" not in word
