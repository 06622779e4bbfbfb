"""The record that the rules read: a command with its settings, and where it will run."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.addresses import scheme
from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.errors import CheckpointError, ConfigError
from mmsearch_jax.distributed.layout import AXES, mesh_sizes
from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.planning.sizes import model_of
from mmsearch_jax.settings.commands import LearnerSettings


class Note(str):
    """A finding that does not stop the run."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the run's files are.

    Attributes:
      mounts: directories of the run's machines, which are not this one. Nothing below them is looked into; all else but the
        package's own files is missing there. None: the run is on this machine.
      shared: directories of this machine that all machines of the run share.
      expected: files and directories that will exist when the run starts, such as another run's results.
    """

    mounts: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()

    def is_here(self, path: str | Path, name: str) -> bool:
        """Whether a file that the run reads must exist on this machine (otherwise it cannot or need not be looked for).

        Args:
          name: the setting or argument that names it.

        Raises:
          ConfigError: the run's machines do not have it.
        """
        if scheme(path) or any(_below(path, each) for each in self.expected):
            return False
        if not self.mounts or _is_bundled(path):
            return True
        if not any(_below(path, each) for each in self.mounts):
            raise ConfigError(
                f"{name} is {path}, which the run's machines do not have: put it below {' or '.join(self.mounts)}"
            )
        return False

    def is_shared(self, path: str | Path) -> bool:
        """Whether all machines of the run see this directory."""
        return bool(scheme(path)) or any(_below(path, each) for each in (*self.mounts, *self.shared))


@dataclasses.dataclass(frozen=True)
class Run:
    """A command and its surroundings.

    Attributes:
      command: its name.
      settings: None if it has none.
      config: the config file as it was named, for hints.
      inputs: files and directories that its arguments name, by argument.
      topology: None: unknown; `devices` may still be known.
      devices, processes: of the whole run; 0: unknown.
      machines: that the processes are on.
      variables: names of the environment variables of the run's machines; None: those of this one.
      reach: whether services are asked for.
      rescores: whether the command only judges and scores what an earlier one wrote: no policy, no benchmark, no search.
    """

    command: str
    settings: Any = None
    workdir: Path | None = None
    config: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    place: Place = Place()
    topology: Topology | None = None
    devices: int = 0
    processes: int = 0
    machines: int = 1
    variables: frozenset[str] | None = None
    reach: bool = False
    rescores: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether the run's machines are not this one."""
        return bool(self.place.mounts)

    @property
    def stages(self) -> list[tuple[str, Any]]:
        """The learners of the command: name and section of its settings."""
        if not isinstance(self.settings, LearnerSettings):
            return []
        return [(name, getattr(self.settings, name)) for name in ("sft", "grpo") if hasattr(self.settings, name)]

    @property
    def samples(self) -> bool:
        """Whether the command has an engine of its own."""
        commands = ("grpo", "eval", "ask", "serve", "quickstart")
        return self.settings is not None and self.command in commands and not self.endpoint and not self.rescores

    @property
    def endpoint(self) -> str:
        """Address of the served policy that takes the place of a checkpoint; "" if there is none."""
        return getattr(getattr(self.settings, "endpoint", None), "url", "")

    @property
    def per_process(self) -> int:
        """Devices of each process; 0 if unknown."""
        return self.devices // max(1, self.processes)

    @functools.cached_property
    def model(self) -> ModelConfig | None:
        """Sizes of the policy, from the checkpoint here or by its name; None if neither gives them."""
        checkpoint = getattr(self.settings, "checkpoint", "")
        if not checkpoint or self.endpoint:
            return None
        try:
            return model_of(checkpoint, hint=Path(self.config.partition(".py")[0]).name)
        except (ConfigError, CheckpointError):
            # Missing or damaged: the rule about checkpoints says so.
            return None

    @functools.cached_property
    def mesh(self) -> Mapping[str, int] | None:
        """Size of each mesh axis; None if it is unknown, or does not make up the devices (a rule says so)."""
        if not self.stages or not self.devices:
            return None
        try:
            return dict(zip(AXES, mesh_sizes(self.settings.mesh, self.devices), strict=True))
        except ConfigError:
            return None


def _below(path: str | Path, folder: str) -> bool:
    whole, above = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return whole == above or above in whole.parents


def _is_bundled(path: str | Path) -> bool:
    return any(_below(path, str(bundled(name))) or _below(path, name) for name in ("assets", "configs"))
