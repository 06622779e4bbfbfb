"""The environment of a process that a test starts, with simulated devices."""

import os


def environment(count: int) -> dict[str, str]:
    """This process's environment with JAX on `count` CPU devices; the other flags of XLA stay (conftest.py sets some)."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}
