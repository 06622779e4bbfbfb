"""Counts what XLA compiles."""

import jax


class Compilations:
    """The number of XLA compilations in all threads since this object was made."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration: float, **_: object) -> None:
        self.count += event == "/jax/core/compile/backend_compile_duration"
