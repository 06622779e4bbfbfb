"""The best rates of the device, for plain bf16 matrix products and memory: python -m benchmarks.card [--quick]."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import harness
from benchmarks.table import Measured, command_line, report


def main() -> None:
    """Prints both rates."""
    options = command_line("Matrix products and bandwidth of the device.", "smaller arrays").parse_args()
    side, size = (2048, 2**26) if options.quick else (8192, 2**30)
    print(harness.machine())
    report(
        {
            "card, bf16 matrix products": Measured(matmul_flops(side) / 1e12, "TFLOP/s", "", True),
            "card, copy": Measured(copy_bytes(size) / 1e9, "GB/s", "", True),
        },
        options.json,
    )


def matmul_flops(side: int) -> float:
    """FLOP/s of products of two square bf16 matrices."""
    a = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    product = jax.jit(lambda a, b: a @ b)
    return 2 * side**3 / _seconds_queued(lambda: product(a, a))


def copy_bytes(size: int) -> float:
    """Bytes per second that plain passes over an array of `size` bytes read and write."""
    array = jnp.zeros(size // 4, jnp.float32)
    step = jax.jit(lambda x: x + 1.0)
    return 2 * size / _seconds_queued(lambda: step(array))


def _seconds_queued(call: Callable[[], jax.Array], calls: int = 10, repeats: int = 4) -> float:
    """Seconds of a call on the device, in the best of some rounds of calls that follow each other without a wait.

    A wait after each call would count its launch, too: measured so, an H200 copied at 3,196 of its 4,800 GB/s.
    """

    def together() -> jax.Array:
        for _ in range(calls - 1):
            call()
        return call()

    return min(harness.seconds(together, repeats)) / calls


if __name__ == "__main__":
    main()
