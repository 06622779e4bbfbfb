"""What all tests share: shapes in types are checked, and programs that several of them compile are compiled once."""

import os
import tempfile

import pytest

from tests import shape_checks

_FOLDER = "JAX_COMPILATION_CACHE_DIR"
# Most of a test's time is compilation of programs that run once, on few numbers: compiling fast matters more than running fast.
_COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def pytest_configure(config):
    shape_checks.install()
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_COMPILE_FAST}".strip()
    # The directory is new for every run, and the processes that tests start inherit it.
    if _FOLDER not in os.environ:
        config.compiled = tempfile.TemporaryDirectory(prefix="mmsearch-tests-")
        os.environ[_FOLDER] = config.compiled.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        # With a limit JAX takes a lock: without, a process may read what another has half written.
        os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(1 << 30)


def pytest_unconfigure(config):
    if compiled := getattr(config, "compiled", None):
        compiled.cleanup()


@pytest.fixture
def guarded_steps(monkeypatch):
    """The step loops of the engine and of the learners make no implicit transfer between host and device."""
    # Imports JAX, which most tests do without.
    from tests import step_loops

    step_loops.guard(monkeypatch)
