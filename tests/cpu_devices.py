"""How JAX runs on CPUs in tests: compiler flags, and the environment of processes that tests start."""

import os

COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Most of a test's time is compilation of programs that run once, on few numbers."""


def environment(count: int) -> dict[str, str]:
    """This process's environment with JAX on `count` CPU devices, and programs that are compiled fast."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{COMPILE_FAST} --xla_force_host_platform_device_count={count}",
    }
