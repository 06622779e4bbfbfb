"""Which stages of a job with several stages are finished in a work directory, and how long each took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import ConfigError

STAGES_FILE = "stages.json"
_MISSING = object()


class Stages:
    """The record of a job's stages; the file is written after each of them. A finished stage is not repeated.

    Attributes:
      seconds: time of each stage, over all starts that ended in Python.

    Args:
      settings: what the results depend on, as plain values by dotted name: a work directory holds the results of one job.
      resume: False forgets what is finished.

    Raises:
      ConfigError: the stages in `workdir` were made with other settings; the message names the first difference.
    """

    def __init__(self, workdir: Path, settings: Mapping[str, Any], resume: bool = True):
        self._file = workdir / STAGES_FILE
        # As JSON returns them: tuples become lists.
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._finished: list[str] = []
        self.seconds: dict[str, float] = {}
        if resume and self._file.is_file():
            record = json.loads(self._file.read_text(encoding="utf-8"))
            self._compare(workdir, record["settings"])
            self._finished, self.seconds = record["finished"], record["seconds"]

    def run(self, name: str, work: Callable[[], object], result: Path) -> None:
        """Does the work of a stage, unless it is finished and its `result` exists."""
        if name in self._finished and result.exists():
            print(f"{name}: finished before, in {self._file.parent}")
            return
        began, before = time.monotonic(), self.seconds.get(name, 0.0)
        try:
            work()
            self._finished.append(name)
        finally:
            self.seconds[name] = round(before + time.monotonic() - began, 1)
            self._write()

    def _compare(self, workdir: Path, made_with: Mapping[str, Any]) -> None:
        for name in [*self._settings, *made_with]:
            old, new = made_with.get(name, _MISSING), self._settings.get(name, _MISSING)
            # A setting that another version of the package has or lacks says nothing about this run.
            if old != new and _MISSING not in (old, new):
                raise ConfigError(
                    f"the results in {workdir} were made with {name} = {old}, this run has {new}: set it back, or use "
                    "another --workdir"
                )

    def _write(self) -> None:
        record = {"settings": self._settings, "finished": self._finished, "seconds": self.seconds}
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        part.replace(self._file)
