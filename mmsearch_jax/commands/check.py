"""`mmsearch check`: reads a command line as its command would, and applies the rules of `jobs.check` to it. Loads no JAX."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch_jax.commands.command import Command, inputs_of
from mmsearch_jax.commands.command_line import make_parser, split_overrides
from mmsearch_jax.core.errors import ConfigError, MMSearchError, NotReady

if TYPE_CHECKING:
    from mmsearch_jax.core.config_problems import Resolved
    from mmsearch_jax.distributed.topologies import Topology
    from mmsearch_jax.jobs.check.findings import Findings
    from mmsearch_jax.jobs.check.run import Run


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology",
        metavar="CHIP:SHAPE",
        help="the machines, such as v5p:2x2x4 or h100:16, or Google Cloud's name (v5p-32); default: the config's",
    )
    parser.add_argument(
        "--processes", type=_count, default=0, metavar="N", help="number of processes (default: by topology)"
    )
    parser.add_argument(
        "--devices", type=_count, default=0, metavar="N", help="devices of all processes (default: by topology)"
    )
    parser.add_argument(
        "--machines", type=_count, default=0, metavar="N", help="number of machines (default: by topology)"
    )
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="DIR",
        help="a directory of the run's machines, which are not this one: nothing below it is looked for here",
    )
    parser.add_argument(
        "--shared",
        action="append",
        default=[],
        metavar="DIR",
        help="a directory here that all machines of the run share",
    )
    parser.add_argument(
        "--expect", action="append", default=[], metavar="PATH", help="a file or directory that will exist by then"
    )
    parser.add_argument(
        "--secrets", type=Path, metavar="FILE", help="the file of the run's keys (lines KEY=VALUE); only names are read"
    )
    parser.add_argument(
        "--reach", action="store_true", help="also ask the judge and the search server whether they are up"
    )
    parser.add_argument("line", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command line to check")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of them: give a whole number, or leave the option out")
    return int(text)


def _run(options: argparse.Namespace) -> None:
    line = options.line[1:] if options.line[:1] == ["--"] else options.line
    if not line:
        raise ConfigError("mmsearch check needs a command: mmsearch check -- sft --workdir runs/sft")
    findings, ready = check_line(line, options)
    for note in findings.notes:
        print(f"note: {note}", file=sys.stderr)
    if findings.problems:
        raise NotReady(findings.problems)
    print(ready)


def check_line(line: Sequence[str], options: argparse.Namespace) -> tuple[Findings, str]:
    """The findings about a command line, and its summary.

    Args:
      line: the words after `mmsearch` (which may lead them).
      options: of `mmsearch check`; `commands` are all commands.

    Raises:
      ConfigError: an option of `mmsearch check` itself is wrong.
    """
    from mmsearch_jax.jobs.check import findings

    topology = _topology(options.topology) if options.topology else None
    variables = _variables(options.secrets) if options.secrets else None
    words = list(line[1:] if line[0] == "mmsearch" else line)
    parsed, rest, problem = _parse(words, options.commands)
    if parsed is None:
        return findings.Findings([problem] if problem else [], []), f"ready: {' '.join(words)}"
    run, problems = _read(parsed, rest, options, topology, variables)
    if getattr(parsed, "print_config", False):
        return findings.Findings(problems, []), f"ready: {run.command} --print-config"
    found = findings.check(run)
    return findings.Findings([*problems, *found.problems], found.notes), findings.summary(run)


def _parse(words: list[str], commands: Mapping[str, Command]) -> tuple[argparse.Namespace | None, list[str], str]:
    """The parsed words and those that are left; or None and the parser's complaint ("" for --help)."""
    name = next((word for word in words if not word.startswith("-")), "")
    if name and name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"commands are {', '.join(commands)}"
        return None, [], f"unknown command '{name}': {hint}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parsed, rest = make_parser(commands).parse_known_args(words)
    except SystemExit as stop:
        last = said.getvalue().strip().splitlines()[-1:] or [""]
        return None, [], last[0].partition("error: ")[2] if stop.code else ""
    return parsed, rest, ""


def _read(
    parsed: argparse.Namespace,
    rest: list[str],
    options: argparse.Namespace,
    topology: Topology | None,
    variables: frozenset[str] | None,
) -> tuple[Run, list[str]]:
    """The run that the parsed words describe, and the mistakes in the words and in their settings."""
    from mmsearch_jax.jobs.check.run import Place, Run

    command = options.commands[parsed.command]
    given, problems = split_overrides(command, rest, hasattr(parsed, "config"))
    overrides = [*getattr(parsed, "overrides", []), *given]
    config = str(getattr(parsed, "config", None) or "")
    if command.check_arguments is not None and not getattr(parsed, "print_config", False):
        try:
            command.check_arguments(parsed)
        except MMSearchError as error:
            problems.append(str(error))
    try:
        resolved = _settings(command, parsed, overrides)
        settings, problems = resolved.settings, [*problems, *resolved.problems]
    except MMSearchError as error:
        settings, problems = None, [*problems, str(error)]
    if command.name == "plan":
        named = topology or _topology(parsed.topology)
        # A search finds the mesh itself.
        topology = None if parsed.search else named
    else:
        topology = topology or _of_config(config)
    run = Run(
        command.name,
        settings,
        Path(parsed.workdir) if command.workdir else None,
        config,
        inputs_of(command, parsed),
        Place(tuple(options.mount), tuple(options.shared), tuple(options.expect)),
        topology,
        options.devices or (topology.num_devices if topology else 0),
        options.processes or (topology.num_processes if topology else 0),
        options.machines or (topology.num_hosts if topology else 1),
        variables,
        options.reach,
        getattr(parsed, "rejudge", False),
    )
    return run, problems


def _settings(command: Command, parsed: argparse.Namespace, overrides: list[str]) -> Resolved:
    from mmsearch_jax.core.bundled import bundled
    from mmsearch_jax.core.config_files import run_config_file
    from mmsearch_jax.core.config_problems import Resolved, resolve_all
    from mmsearch_jax.core.settings import plain

    if command.name == "serve-tools":
        from tools_server.options import arguments_of
        from tools_server.settings.server import ServerSettings

        values = run_config_file(parsed.config).to_dict() if parsed.config else plain(ServerSettings())
        return resolve_all(ServerSettings, values, [*overrides, *arguments_of(parsed)])
    if command.name == "plan":
        from mmsearch_jax.commands.plan import tree_of

        own_mesh = parsed.search or any(each.startswith("--config.mesh.") for each in overrides)
        values = run_config_file(parsed.config, "" if own_mesh else parsed.topology).to_dict()
        return resolve_all(tree_of(values, parsed.config), values, overrides)
    if command.settings is None:
        return Resolved(None, [])
    file = parsed.config or (bundled(f"configs/{command.config}") if command.config else None)
    if argument := getattr(parsed, "config_argument", ""):
        file = f"{file}:{argument}"
    tree = command.settings()
    values = plain(tree()) if file is None else run_config_file(file).to_dict()
    return resolve_all(tree, values, overrides)


def _topology(name: str) -> Topology:
    from mmsearch_jax.distributed.topologies import of_accelerator_type, parse

    return of_accelerator_type(name) or parse(name)


def _of_config(config: str) -> Topology | None:
    """The topology after a config's file, if that is what stands there."""
    from mmsearch_jax.distributed.topologies import parse

    try:
        return parse(config.partition(".py:")[2])
    except ConfigError:
        return None


def _variables(file: Path) -> frozenset[str]:
    if not file.is_file():
        raise ConfigError(f"--secrets {file}: no such file; it has lines KEY=VALUE")
    lines = (line.strip().removeprefix("export ") for line in file.read_text(encoding="utf-8").splitlines())
    return frozenset(line.partition("=")[0].strip() for line in lines if "=" in line and not line.startswith("#"))


COMMAND = Command(
    "check",
    "Says everything that would stop a command, without starting it: one line for each mistake, exit code 2.\n"
    "Reads the command line as the command would: settings, files, mesh, memory, services. The launch scripts call it first.",
    _run,
    (
        "mmsearch check -- sft --workdir runs/sft",
        "mmsearch check --topology v5p:2x2x4 --mount /mnt -- sft --config configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4 \\\n"
        "      --config.checkpoint=/mnt/models/Qwen2.5-VL-7B-Instruct \\\n"
        "      --config.sft.data.sets=\"('/mnt/data/train.array_record',)\" --workdir /mnt/runs/sft7b",
    ),
    _add_arguments,
)
