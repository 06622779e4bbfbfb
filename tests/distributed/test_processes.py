"""Several real processes: agreement between them, and the reaction of the others when one dies."""

import subprocess
import sys

import pytest

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed import processes
from tests import cpu_devices
from tests.distributed.test_learners_on_meshes import free_port

_AGREE = """
import sys
from mmsearch_jax.distributed import processes
number = int(sys.argv[1])
processes.start(sys.argv[2], 2, number)
assert processes.largest_of_all(3 - number) == 3
assert processes.sums_of_all({"a": 1.5 + number, "b": 2.0}) == {"a": 4.0, "b": 4.0}
told = processes.records_of_all({"from": number, "text": "x" * (100 if number else 3)})
assert [record["from"] for record in told] == [0, 1] and len(told[1]["text"]) == 100
# In pieces of four bytes from each; zeros at the end belong to the bytes.
processes._PIECE_BYTES = 8
assert processes.bytes_of_all(bytes(range(10 * number)) + b"\\0") == [b"\\0", bytes(range(10)) + b"\\0"]
assert processes.bytes_of_all(b"") == [b"", b""]
with processes.first_process_first():
    print("block of", number, flush=True)
"""
_FAIL_FIRST = """
import sys
from mmsearch_jax.distributed import processes
from mmsearch_jax.core.errors import ProcessFailed
number = int(sys.argv[1])
processes.start(sys.argv[2], 2, number)
try:
    with processes.first_process_first():
        raise OSError("disk full") if number == 0 else AssertionError("must not come here")
except (OSError, ProcessFailed) as error:
    print(error, flush=True)
"""
_DIE = """
import os, sys, time
from mmsearch_jax.distributed import processes
number = int(sys.argv[1])
processes.start(sys.argv[2], 2, number, heartbeat_timeout_s=10)
processes.largest_of_all(1)
if number == 1:
    os.kill(os.getpid(), 9)
time.sleep(1)
for _ in range(600):
    processes.largest_of_all(1)
    time.sleep(0.1)
"""


def started(script):
    coordinator = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number), coordinator],
            env=cpu_devices.environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def test_processes_agree_on_numbers_and_exchange_records():
    running = started(_AGREE)
    said = [process.communicate(timeout=120) for process in running]
    for process, (out, errors), number in zip(running, said, (0, 1), strict=True):
        assert process.returncode == 0, errors[-2000:]
        assert f"block of {number}" in out


def test_a_failure_of_process_0_is_told_to_those_that_wait_for_it():
    first, second = (process.communicate(timeout=120)[0] for process in started(_FAIL_FIRST))
    assert "disk full" in first
    assert "process 0 failed in the work that it does first" in second


def test_when_one_dies_the_other_stops_with_a_message_and_does_not_hang():
    survivor, victim = started(_DIE)
    victim.wait(timeout=120)
    _, errors = survivor.communicate(timeout=90)
    assert survivor.returncode != 0
    assert errors.strip(), "it should say why it stops"


def test_half_an_address_is_refused():
    with pytest.raises(ConfigError, match="need --coordinator, --num-processes and --process-id, all three"):
        processes.start("127.0.0.1:1", 2)


def test_one_process_needs_no_others():
    processes.start()
    assert processes.largest_of_all(5) == 5
    assert processes.sums_of_all({"a": 1.0}) == {"a": 1.0}
    assert processes.records_of_all({"a": [1]}) == [{"a": [1]}]
