"""`mmsearch <command>`: reads the command line and the settings, and calls one command.

A user's mistake gives one line and exit code 2, before anything is loaded or started. Only commands that compute import JAX.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmsearch_jax.commands import (
    ask,
    cache,
    check,
    compare,
    data,
    datagen,
    eval,
    export_hf,
    grpo,
    import_hf,
    index,
    plan,
    pretrain,
    quickstart,
    report,
    serve,
    serve_mcp,
    serve_tools,
    sft,
)
from mmsearch_jax.commands.command import Command, inputs_of, interrupted
from mmsearch_jax.commands.command_line import make_parser, split_overrides
from mmsearch_jax.core.addresses import check_workdir
from mmsearch_jax.core.buckets import is_address
from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.errors import ConfigError, MMSearchError, NotReady, Preempted
from mmsearch_jax.core.run_lock import RunLock
from mmsearch_jax.core.staging import StagedDirectory, lock_of, shown_in

EXIT_PREEMPTED = 75
"""Stopped by SIGTERM with everything saved: run the same command again (EX_TEMPFAIL of sysexits.h)."""
_MODULES = (
    quickstart, pretrain, sft, grpo, eval, compare, ask, check, serve, serve_tools, serve_mcp, cache, import_hf,
    export_hf, datagen, plan, report, data, index,
)  # fmt: skip
COMMANDS: dict[str, Command] = {module.COMMAND.name: module.COMMAND for module in _MODULES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code (0 done, 2 a mistake that the user can correct, 75 pre-empted, 130 interrupted)."""
    options, rest = make_parser(COMMANDS).parse_known_args(list(sys.argv[1:] if arguments is None else arguments))
    command = COMMANDS[options.command]
    try:
        given, problems = split_overrides(command, rest, hasattr(options, "config"))
        if problems:
            raise ConfigError(problems[0])
        options.overrides = [*getattr(options, "overrides", []), *given]
        with contextlib.ExitStack() as held:
            if not _prepare(command, options, held):
                return 0
            command.run(options)
    except Preempted as error:
        print(f"stopped: {shown_in(str(error))}", file=sys.stderr)
        return EXIT_PREEMPTED
    except NotReady as error:
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        return 2
    except (MMSearchError, OSError) as error:
        if options.debug:
            raise  # with the whole traceback, as requested
        print(f"error: {shown_in(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted(command, getattr(options, "workdir", None)), file=sys.stderr)
        return 130
    return 0


def _prepare(command: Command, options: argparse.Namespace, held: contextlib.ExitStack) -> bool:
    """Everything before the command's own work: settings, environment, processes, the work directory, which is in `held`
    afterwards. Returns False if nothing is left to do.

    Raises:
      ConfigError: a setting or an option that is invalid, or that cannot work here.
    """
    if command.settings is None:
        _check_arguments(command, options)
        return True
    from mmsearch_jax.core.config_files import load

    default = bundled(f"configs/{command.config}") if command.config else None
    file = options.config or default
    if argument := getattr(options, "config_argument", ""):
        file = f"{file}:{argument}"
    loaded = load(command.settings(), file, options.overrides)
    if options.print_config:
        print("\n".join(loaded.lines()))
        return False
    options.settings = loaded.settings
    _require_ready(command, options)
    if getattr(options, "compilation_cache", ""):
        _keep_programs(options.compilation_cache)
    if command.processes:
        from mmsearch_jax.distributed.processes import start

        start(
            options.coordinator,
            options.num_processes,
            options.process_id,
            from_environment=options.distributed,
            heartbeat_timeout_s=options.heartbeat_timeout,
        )
    if command.workdir:
        _open_workdir(command, options, held)
    return True


def _require_ready(command: Command, options: argparse.Namespace) -> None:
    """Applies the rules of `mmsearch check`, as far as they need no machines, before anything is loaded or written.

    Raises:
      NotReady: something would stop the command.
    """
    from mmsearch_jax.jobs.check import findings
    from mmsearch_jax.jobs.check.run import Run

    if command.workdir:
        # The environment of several processes does not tell their number before they have met.
        check_workdir(options.workdir, _several(options))
    _check_arguments(command, options)
    found = findings.check(
        Run(
            command.name,
            options.settings,
            options.workdir if command.workdir else None,
            str(options.config or ""),
            inputs_of(command, options),
            processes=getattr(options, "num_processes", None) or 0,
            rescores=getattr(options, "rejudge", False),
        )
    )
    if found.problems:
        raise NotReady(found.problems)


def _check_arguments(command: Command, options: argparse.Namespace) -> None:
    if command.check_arguments is not None:
        command.check_arguments(options)


def _several(options: argparse.Namespace) -> bool:
    """Whether this is one of several processes."""
    return bool(getattr(options, "distributed", False) or getattr(options, "coordinator", None))


def _open_workdir(command: Command, options: argparse.Namespace, held: contextlib.ExitStack) -> None:
    """Stages a bucket's address as a local folder, and takes the lock for a command that must be alone."""
    staged = StagedDirectory(options.workdir) if is_address(options.workdir) else None
    if command.exclusive:
        _take(lock_of(staged) if staged is not None else RunLock.of(options.workdir), options, held)
    if staged is not None:
        # Under the lock: it copies what the run before has left.
        options.workdir = held.enter_context(staged).path


def _take(lock: RunLock, options: argparse.Namespace, held: contextlib.ExitStack) -> None:
    if not _several(options):
        held.enter_context(lock)
        return
    import jax

    from mmsearch_jax.distributed.processes import first_process_first

    # Several processes of one run share it.
    with first_process_first():
        if jax.process_index() == 0:
            held.enter_context(lock)


def _keep_programs(folder: str) -> None:
    if "://" not in folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    # JAX reads both when it is imported. It skips programs that compile within a second, as most of a small policy's do.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


if __name__ == "__main__":
    sys.exit(main())
