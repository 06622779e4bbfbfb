"""A command of the command line: its name, texts, arguments, settings and job."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.core.settings import Section


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      name: as it is typed.
      description: text of its help; the list of commands shows the first line.
      run: does the work; gets the parsed arguments, with `settings` among them if the command has any.
      examples: command lines to copy.
      add_arguments: adds the command's own arguments.
      settings: returns the tree of its settings (a function, so that the list of commands loads none of them).
      config: its default config file, below configs/; "" for a command that starts from the defaults.
      workdir: whether it writes to a work directory.
      exclusive: whether it must be the only such job in its work directory.
      processes: whether it can run as several processes.
      inputs: names of its own arguments that name files or directories to read.
      check_arguments: raises a `ConfigError` if its own arguments contradict one another or lack something.
      resumes: after Ctrl-C, what the same command continues from ("{checkpoints}": the newest ones in the work directory);
        "" for a command that starts again.
    """

    name: str
    description: str
    run: Callable[[argparse.Namespace], None]
    examples: Sequence[str]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None
    settings: Callable[[], type[Section]] | None = None
    config: str = ""
    workdir: bool = False
    processes: bool = False
    exclusive: bool = False
    inputs: Sequence[str] = ()
    check_arguments: Callable[[argparse.Namespace], None] | None = None
    resumes: str = ""


def interrupted(command: Command, workdir: Path | None) -> str:
    """The message after Ctrl-C: what the same command will continue from."""
    if not command.resumes:
        return "interrupted"
    return f"interrupted: the same command resumes from {command.resumes.format(checkpoints=_newest(workdir))}"


def _newest(workdir: Path | None) -> str:
    """The newest checkpoint of each stage in a work directory, such as "step 132 of sft, step 8 of grpo"."""
    if workdir is None or "://" in str(workdir):
        return "its newest checkpoint"
    newest = {
        stage.name: max(int(step.name) for step in stage.iterdir() if step.name.isdecimal())
        for stage in (workdir / "checkpoints").glob("*")
        if any(step.name.isdecimal() for step in stage.iterdir())
    }
    # In the order in which they were made.
    stages = sorted(newest, key=lambda stage: (workdir / "checkpoints" / stage / str(newest[stage])).stat().st_mtime)
    return ", ".join(f"step {newest[stage]} of {stage}" for stage in stages) or "its start (there is no checkpoint yet)"


def inputs_of(command: Command, options: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """The files that the command's arguments name, by argument; addresses on the web are none."""
    found = []
    for name in command.inputs:
        value: Any = getattr(options, name, None)
        for each in value if isinstance(value, list | tuple) else [value]:
            if each and not str(each).startswith(("http://", "https://", "data:")):
                found.append((name, str(each)))
    return tuple(found)


class SetSetting(argparse.Action):
    """An option that abbreviates `--config.PATH=VALUE`; the path is the option's `const`."""

    def __init__(self, *arguments: Any, const: str, **keywords: Any):
        super().__init__(*arguments, **{**keywords, "const": const, "dest": argparse.SUPPRESS})

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.overrides = [*getattr(namespace, "overrides", []), f"--config.{self.const}={values}"]


def add_profile(parser: argparse.ArgumentParser) -> None:
    """The argument `--profile` of the commands that train."""
    parser.add_argument(
        "--profile",
        action=SetSetting,
        const="run.profile_steps",
        metavar="STEPS",
        help="trace this many steps into DIR/profile, for xprof (first step: run.profile_first, by default the third)",
    )
