"""Everything around a training run's steps: resuming, metrics, checkpoints, a guard against divergence, pre-emption.

It works on steps and train states and does not depend on losses or data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import jax

from mmsearch_jax.core.buckets import open_bucket
from mmsearch_jax.core.errors import CheckpointError, Preempted, TrainingDiverged
from mmsearch_jax.core.run_lock import RunLock
from mmsearch_jax.core.staging import native_address, push_all, push_all_soon
from mmsearch_jax.distributed.processes import first_process_first, largest_of_all
from mmsearch_jax.learners.checkpoints import Best, Checkpoints, remove_unfinished
from mmsearch_jax.learners.run_folder import CHECKPOINTS, set_aside
from mmsearch_jax.learners.run_identity import IDENTITY, flat, require_same
from mmsearch_jax.learners.run_log import RunLog
from mmsearch_jax.learners.train_state import TrainState
from mmsearch_jax.settings.learning import RunConfig


@dataclasses.dataclass(frozen=True)
class RunPlace:
    """Where and how a run is stored.

    Attributes:
      workdir: contains metrics.jsonl, TensorBoard events and checkpoints/<phase>.
      phase: name of the run within the work directory: "sft", "grpo".
      identity: the settings that the numbers depend on, as plain JSON; a checkpoint with other settings is refused.
      show_progress: whether a progress bar is shown.
      hyperparameters: all settings as plain values, for settings/<phase>.json and Weights & Biases.
    """

    workdir: Path
    phase: str
    config: RunConfig = RunConfig()
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    show_progress: bool = True
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def checkpoints(self) -> Path | str:
        """Folder of the run's checkpoints, or the address to which Orbax writes them."""
        folder = Path(self.workdir) / CHECKPOINTS / self.phase
        return native_address(folder) or folder


def saved_position(place: RunPlace) -> Any:
    """The data position that the run will resume from, or None if it begins (every process must call it).

    Raises:
      CheckpointError: the newest checkpoint was made with another config; the message names the setting that differs.
    """
    if not place.config.resume or (isinstance(place.checkpoints, Path) and not place.checkpoints.is_dir()):
        return None
    with Checkpoints(place.checkpoints, place.config.keep) as checkpoints:
        step = checkpoints.latest_step
        if step is None:
            return None
        extra = checkpoints.read_extra(step)
        require_same(flat(place.identity), extra.get(IDENTITY, {}), f"step {step} in {checkpoints.folder}")
        return extra.get("position")


class TrainingRun:
    """One phase of a run in a work directory, which it holds until it ends; a context manager.

    Args:
      best: which checkpoint to keep in addition to the latest.

    Raises:
      DirectoryInUse: another run writes to the work directory.
    """

    def __init__(self, place: RunPlace, num_steps: int, *, best: Best | None = None):
        self._config, self._num_steps, self._identity = place.config, num_steps, flat(place.identity)
        self._workdir, self._phase, self._show = Path(place.workdir), place.phase, place.show_progress
        self._hyperparameters = place.hyperparameters
        # Before Orbax looks at the checkpoints: it removes those that another process has not finished.
        self._open = contextlib.ExitStack()
        with first_process_first():
            if jax.process_index() == 0:
                self._open.enter_context(RunLock.of(self._workdir))
        with contextlib.ExitStack() as failed:
            failed.callback(self._open.close)
            if not place.config.resume:
                with first_process_first():
                    if jax.process_index() == 0:
                        _begin_anew(self._workdir, self._phase)
            if isinstance(place.checkpoints, str):
                with first_process_first():
                    if jax.process_index() == 0:
                        remove_unfinished(place.checkpoints)
            self.checkpoints = Checkpoints(place.checkpoints, place.config.keep, best)
            failed.pop_all()
        self._skipped_in_a_row, self._skipped_before = 0, 0
        self._stopping = threading.Event()
        self._log: RunLog | None = None
        self._trace = _Trace(self._workdir / "profile", place.config, num_steps)
        self._old_handler: Any = None

    def __enter__(self) -> Self:
        # Python delivers signals only to the main thread; in other threads (tests) pre-emption is not handled.
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGTERM, lambda *_: self._stopping.set())
        return self

    def __exit__(self, *_: object) -> None:
        self._trace.stop()
        if self._log is not None:
            self._log.__exit__()
        self.checkpoints.__exit__()
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, self._old_handler)
        self._open.close()

    def begin(self, state: TrainState) -> tuple[TrainState, int, Any]:
        """The initial state, the number of steps already made, and the data position saved with them (or None).

        Raises:
          CheckpointError: the newest checkpoint was made with another config; the message names the setting that differs.
        """
        step, position = self.checkpoints.latest_step if self._config.resume else None, None
        if step is not None:
            saved = self.checkpoints.read_extra(step).get(IDENTITY, {})
            require_same(self._identity, saved, f"step {step} in {self.checkpoints.folder}")
            state, extra = self.checkpoints.restore(state, step)
            position = extra.get("position")
        self._skipped_before = int(jax.device_get(state.skipped))
        self._log = RunLog(
            self._workdir,
            self._phase,
            self._num_steps,
            step,
            self._show,
            wandb_project=self._config.wandb,
            writes=jax.process_index() == 0,
            hyperparameters=self._hyperparameters,
        )
        self._trace.begin(step or 0)
        return state, step or 0, position

    def say(self, text: str) -> None:
        """Prints a line without breaking the progress bar."""
        assert self._log is not None
        self._log.say(text)

    def record_start(self, state: TrainState, metrics: Mapping[str, Any], position: Any) -> None:
        """Records what was measured before the first step, with a checkpoint, so that a resumed run does not repeat it."""
        assert self._log is not None
        self._log.write(0, metrics)
        self.checkpoints.save(0, state, {"position": position, IDENTITY: self._identity}, metrics)

    def finish_step(
        self,
        step: int,
        state: TrainState,
        metrics: Mapping[str, Any],
        position: Callable[[], Any],
        shown: tuple[str, ...],
        *,
        keep: bool = False,
    ) -> None:
        """Records a step, and saves a checkpoint if one is due.

        Args:
          step: number of steps made, including this one.
          position: data position as plain JSON; called only when a checkpoint is written.
          shown: the metrics that are printed after the progress bar.
          keep: save a checkpoint in any case.

        Raises:
          TrainingDiverged: too many consecutive updates were skipped.
          Preempted: the process was asked to stop; a checkpoint has been written.
        """
        assert self._log is not None
        self._log.write(step, metrics, shown)
        self._guard(step, int(jax.device_get(state.skipped)))
        self._trace.after(step)
        every = self._config.checkpoint_every
        stopping = bool(largest_of_all(int(self._stopping.is_set()))) and step < self._num_steps
        if keep or step == self._num_steps or stopping or (every and step % every == 0):
            if native_address(self._workdir) is not None:
                # No checkpoint in a bucket without the metrics of its steps.
                push_all(checkpoints=False)
            self.checkpoints.save(step, state, {"position": position(), IDENTITY: self._identity}, metrics)
            push_all_soon()
        if stopping:
            self.checkpoints.__exit__()
            raise Preempted(
                f"asked to stop: step {step} is saved in {self.checkpoints.folder}; run the same command to resume"
            )

    def _guard(self, step: int, skipped: int) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped > self._skipped_before else 0
        self._skipped_before = skipped
        if self._skipped_in_a_row < self._config.max_skipped:
            return
        good = [number for number in self.checkpoints.steps if number <= step - self._skipped_in_a_row]
        last = (
            f"the last good checkpoint is step {good[-1]} in {self.checkpoints.folder}"
            if good
            else "there is no checkpoint yet"
        )
        raise TrainingDiverged(
            f"{self._skipped_in_a_row} consecutive updates had a non-finite gradient (up to step {step}); {last}. "
            "Lower the learning rate, or check the data of these steps"
        )


def _begin_anew(workdir: Path, phase: str) -> None:
    address = native_address(workdir / CHECKPOINTS / phase)
    if address is not None and open_bucket(address).list():
        raise CheckpointError(
            f"run.resume=false: {address} holds checkpoints of an earlier run, and a bucket cannot rename them: give another "
            "--workdir, or remove them"
        )
    if moved := set_aside(workdir, phase):
        names = ", ".join(str(path.relative_to(workdir)) for path in moved)
        print(f"run.resume=false: the earlier run's state in {workdir} is now {names}", file=sys.stderr)


class _Trace:
    """A profiler trace of some steps. A step has ended on the devices when `after` is called (its metrics were read)."""

    def __init__(self, folder: Path, config: RunConfig, num_steps: int):
        self._folder, self._config, self._steps = folder, config, range(0)
        self._num_steps = num_steps
        self._step: jax.profiler.StepTraceAnnotation | None = None

    def begin(self, start: int) -> None:
        """Must be called once, with the number of steps made before this start."""
        first = start + self._config.profile_first
        self._steps = range(first, min(first + self._config.profile_steps, self._num_steps + 1))
        self.after(start)

    def after(self, step: int) -> None:
        """Must be called after each step: starts the trace before the first traced step and stops it after the last."""
        if step + 1 not in self._steps:
            self.stop()
            return
        if self._step is None:
            options = jax.profiler.ProfileOptions()
            # Traces of every Python call become too large for a browser if a step takes a minute.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._folder, profiler_options=options)
        else:
            self._step.__exit__(None, None, None)
        # xprof separates the steps by these annotations.
        self._step = jax.profiler.StepTraceAnnotation("train", step_num=step + 1)
        self._step.__enter__()

    def stop(self) -> None:
        """Writes the trace if one is running (also when the run ends early)."""
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None
            jax.profiler.stop_trace()
