"""What every training run has around its steps: resuming, metrics, checkpoints, a guard against divergence, pre-emption.

It knows steps and train states, and nothing of losses or data.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import jax

from mmsearch_jax.core.errors import CheckpointError, ConfigError, Preempted, TrainingDiverged
from mmsearch_jax.distributed.processes import largest_of_all
from mmsearch_jax.learners.checkpoints import Best, Checkpoints
from mmsearch_jax.learners.metrics import RunLog
from mmsearch_jax.learners.train_state import TrainState


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How a run is kept.

    Attributes:
      checkpoint_every: steps between checkpoints; 0 writes one at the end only.
      keep: how many of the latest checkpoints to keep; the best is kept besides.
      max_skipped: updates left out in a row, for a gradient that was not finite, before the run is stopped.
      resume: go on from the newest checkpoint in the work directory.
      wandb: project of Weights & Biases to log to as well; empty for none.
      profile_steps: steps to trace into WORKDIR/profile (every process its own devices), for xprof; 0 traces none.
      profile_first: the first of them, counted from this start of the run; the first steps compile.
    """

    checkpoint_every: int = 0
    keep: int = 2
    max_skipped: int = 5
    resume: bool = True
    wandb: str = ""
    profile_steps: int = 0
    profile_first: int = 3

    def __post_init__(self) -> None:
        if self.profile_steps < 0 or self.profile_first < 1:
            raise ConfigError(
                f"run.profile_steps is {self.profile_steps} and run.profile_first {self.profile_first}: at least 0 and 1"
            )


class TrainingRun:
    """One phase of a run in a work directory; a context manager.

    Args:
      identity: the settings on which the numbers depend, as plain JSON; a checkpoint of other settings is refused.
      best: which checkpoint to keep besides the latest.
    """

    def __init__(
        self,
        workdir: str | Path,
        phase: str,
        num_steps: int,
        config: RunConfig,
        *,
        identity: Mapping[str, Any] | None = None,
        best: Best | None = None,
        show_progress: bool = True,
    ):
        self._config, self._num_steps, self._identity = config, num_steps, _flat(identity or {})
        self.checkpoints = Checkpoints(Path(workdir) / "checkpoints" / phase, config.keep, best)
        self._workdir, self._phase, self._show = Path(workdir), phase, show_progress
        self._skipped_in_a_row, self._skipped_before = 0, 0
        self._stopping = threading.Event()
        self._log: RunLog | None = None
        self._trace = _Trace(self._workdir / "profile", config, num_steps)
        self._old_handler: Any = None

    def __enter__(self) -> Self:
        # Python lets the main thread alone take signals; elsewhere (tests) there is no pre-emption to answer.
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

    def begin(self, state: TrainState) -> tuple[TrainState, int, Any]:
        """The state to start from, the number of steps that were made, and the data's position saved with them (or None).

        Raises:
          CheckpointError: the newest checkpoint is of another config; says which setting differs.
        """
        step, position = self.checkpoints.latest_step if self._config.resume else None, None
        if step is not None:
            self._compare(step, self.checkpoints.read_extra(step).get("identity", {}))
            state, extra = self.checkpoints.restore(state, step)
            position = extra.get("position")
        self._skipped_before = int(state.skipped)
        self._log = RunLog(
            self._workdir,
            self._phase,
            self._num_steps,
            step or 0,
            self._show,
            wandb_project=self._config.wandb,
            writes=jax.process_index() == 0,
        )
        self._trace.begin(step or 0)
        return state, step or 0, position

    def say(self, text: str) -> None:
        """Prints a line without breaking the progress bar."""
        assert self._log is not None
        self._log.say(text)

    def finish_step(
        self,
        step: int,
        state: TrainState,
        metrics: Mapping[str, Any],
        position: Callable[[], Any],
        shown: tuple[str, ...],
    ) -> None:
        """Records a step, and saves where it is time to.

        Args:
          step: number of steps made, this one included.
          position: where the data stand, as plain JSON; asked only when a checkpoint is written.
          shown: the metrics that stand behind the progress bar.

        Raises:
          TrainingDiverged: too many updates in a row were left out.
          Preempted: the process was asked to stop; a checkpoint has been written.
        """
        assert self._log is not None
        self._log.write(step, metrics, shown)
        self._guard(step, int(state.skipped))
        self._trace.after(step)
        every = self._config.checkpoint_every
        stopping = bool(largest_of_all(int(self._stopping.is_set()))) and step < self._num_steps
        if step == self._num_steps or stopping or (every and step % every == 0):
            self.checkpoints.save(step, state, {"position": position(), "identity": self._identity}, metrics)
        if stopping:
            self.checkpoints.__exit__()
            raise Preempted(
                f"asked to stop: step {step} is saved in {self.checkpoints.folder}; the same command goes on from it"
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
            f"{self._skipped_in_a_row} updates in a row had a gradient that is not finite (up to step {step}); {last}. "
            "Lower the learning rate, or look at the data of these steps"
        )

    def _compare(self, step: int, saved: Mapping[str, Any]) -> None:
        for name, value in self._identity.items():
            if name in saved and saved[name] != value:
                raise CheckpointError(
                    f"the checkpoint of step {step} in {self.checkpoints.folder} was made with {name} = {saved[name]}, this "
                    f"run has {value}: set it back, or use another --workdir"
                )


class _Trace:
    """A profiler's trace of some steps; a step has ended on the devices when it is told of (its metrics were read)."""

    def __init__(self, folder: Path, config: RunConfig, num_steps: int):
        self._folder, self._config, self._steps = folder, config, range(0)
        self._num_steps = num_steps
        self._step: jax.profiler.StepTraceAnnotation | None = None

    def begin(self, start: int) -> None:
        """To be told of the steps that were made before this start."""
        first = start + self._config.profile_first
        self._steps = range(first, min(first + self._config.profile_steps, self._num_steps + 1))
        self.after(start)

    def after(self, step: int) -> None:
        """To be told of each step once it is made: starts behind the step before the first, stops behind the last."""
        if step + 1 not in self._steps:
            self.stop()
            return
        if self._step is None:
            options = jax.profiler.ProfileOptions()
            # Every Python call of a step that takes a minute is more than a browser opens.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._folder, profiler_options=options)
        else:
            self._step.__exit__(None, None, None)
        # By these marks xprof tells steps apart.
        self._step = jax.profiler.StepTraceAnnotation("train", step_num=step + 1)
        self._step.__enter__()

    def stop(self) -> None:
        """Writes the trace, if one is running (of a run that ends early, too)."""
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None
            jax.profiler.stop_trace()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, so that an error can name the very one."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
