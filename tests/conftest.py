"""Shared setup of all tests: checks of the shapes in types, and one compilation cache."""

import os
import sys
import tempfile

import pytest

from tests import cpu_devices, shape_checks

_FOLDER = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config):
    if "jax" in sys.modules:
        raise pytest.UsageError(
            "JAX was imported before its settings for tests: a conftest.py must import it in its fixtures"
        )
    shape_checks.install()
    # Slow tests train for minutes in this process. Tests of accelerators look at the compiled programs, which must be
    # those of a real run.
    real_programs = any(part in argument for argument in config.args for part in ("tests/tpu", "tests/gpu"))
    if config.option.markexpr != "slow" and not real_programs:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {cpu_devices.COMPILE_FAST}".strip()
    if not real_programs:
        # An operation on arrays of different ranks raises: which dim is meant must stand in the code. JAX's own kernels for
        # accelerators do not keep to it.
        os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
    # Unless one is named, each run has a new directory; the processes that tests start inherit it.
    if _FOLDER not in os.environ:
        config.compiled = tempfile.TemporaryDirectory(prefix="mmsearch-tests-")
        os.environ[_FOLDER] = config.compiled.name
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    # With a size limit JAX locks the cache; without one, a process may read a file that another is still writing.
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(1 << 30))


def pytest_unconfigure(config):
    if compiled := getattr(config, "compiled", None):
        compiled.cleanup()


@pytest.fixture
def guarded_steps(monkeypatch):
    """Forbids implicit transfers between host and device in the step loops of the engine and of the learners."""
    # Imported here because it imports JAX, which most tests do not need.
    from tests import step_loops

    step_loops.guard(monkeypatch)
