"""Simulates a pod on one machine: several processes of a training command, joined by jax.distributed, on CPU devices.

    python launch/local.py --processes 2 -- sft --workdir runs/rehearsal
    python launch/local.py --processes 2 --kill-after 60 --corpus runs/world/corpus -- grpo --workdir runs/rehearsal

The code path is that of a pod: if a process dies, the others stop by themselves; all are restarted and resume from the
last checkpoint. `--kill-after` kills one process once, as a test. `--corpus` starts one tools server for all processes
and adds its address to the command. The command is checked first (`mmsearch check`); `--dry-run` ends there and prints the
processes' commands. Each process writes to WORKDIR/logs/process-I.log
(below runs/ if WORKDIR is a bucket's address).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mmsearch_jax.core.command_line import Parser

ROOT = Path(__file__).resolve().parents[1]
# The exit code of the trainer for an error that the user must fix: a restart would end in the same way.
EXIT_USER = 2
# Time beyond the heartbeat in which the other processes must notice that one has died.
_GRACE_S = 60.0


def main() -> int:
    """Runs the command until it ends; returns its exit code."""
    options = _parse()
    if code := _check(options):
        return code
    if options.dry_run:
        for command in _commands(options, "127.0.0.1:PORT"):
            print("+", shlex.join(command))
        return 0
    workdir = _workdir(options.command)
    # A bucket holds no logs that grow.
    logs = Path(f"runs/{options.command[0]}" if "://" in workdir else workdir) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as beside:
        if options.corpus is not None:
            url = _server(options.corpus, beside)
            _say(f"tools server at {url}")
            options.command.append(f"--config.tools.url={url}")
        return _until_done(options, logs)


def _until_done(options: argparse.Namespace, logs: Path) -> int:
    kill_after = options.kill_after
    for attempt in range(options.restarts + 1):
        _say(f"attempt {attempt + 1}: {options.processes} processes, logs in {logs}")
        codes = run_once(options, logs, kill_after)
        if not any(codes):
            _say("all processes ended without error")
            return 0
        kill_after = None
        _say(f"exit codes {codes}")
        if EXIT_USER in codes:
            _say(f"process {codes.index(EXIT_USER)} says: {_last_line(logs / f'process-{codes.index(EXIT_USER)}.log')}")
            return EXIT_USER
    _say(f"stopped after {options.restarts} restarts: see {logs}")
    return 1


def run_once(options: argparse.Namespace, logs: Path, kill_after: float | None) -> list[int]:
    """Starts all processes, waits until they end, and returns their exit codes (negative: a signal)."""
    running = _start(options, logs)
    _say(f"process ids {' '.join(str(process.pid) for process in running)}")

    def pass_on(number: int, _: object) -> None:
        for process in running:
            process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    began, failed_at = time.monotonic(), None
    try:
        while any(process.poll() is None for process in running):
            now = time.monotonic()
            if kill_after is not None and now - began >= kill_after:
                _say(f"killing process {options.processes - 1} (--kill-after)")
                running[-1].kill()
                kill_after = None
            if failed_at is None and any(process.poll() for process in running):
                failed_at = now
            if failed_at is not None and now - failed_at > options.heartbeat_timeout + _GRACE_S:
                _say("the other processes have not stopped by themselves: killing them")
                for process in running:
                    process.kill()
            time.sleep(0.2)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for process in running:
            if process.poll() is None:
                process.kill()
    return [process.wait() for process in running]


def _check(options: argparse.Namespace) -> int:
    """Checks the command before anything starts; returns the exit code."""
    try:
        from mmsearch_jax.commands.main import main as mmsearch
    except ModuleNotFoundError as error:
        if not options.dry_run:
            raise
        print(f"note: the command is not checked, because this Python lacks {error.name}", file=sys.stderr)
        return 0
    # The address of the tools server is known only when it has started.
    more = ["--config.tools.url=http://127.0.0.1:8765"] if options.corpus is not None else []
    devices = options.processes * options.devices
    there = ["--processes", str(options.processes), "--devices", str(devices), "--machines", "1"]
    return mmsearch(["check", *there, "--", *options.command, *more])


def _server(corpus: Path, beside: contextlib.ExitStack) -> str:
    """Starts a search server that stops when `beside` exits; returns its address."""
    from mmsearch_jax.core.errors import MMSearchError
    from mmsearch_jax.jobs.search_server import start_server

    try:
        return beside.enter_context(start_server(corpus)).url
    except MMSearchError as error:
        _say(f"error: {error}")
        raise SystemExit(EXIT_USER) from error


def _start(options: argparse.Namespace, logs: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={options.devices}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    running = []
    for number, command in enumerate(_commands(options, coordinator)):
        with (logs / f"process-{number}.log").open("ab") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment))
    return running


def _commands(options: argparse.Namespace, coordinator: str) -> list[list[str]]:
    """The command line of each process."""
    shared = [sys.executable, "-m", "mmsearch_jax.commands.main", *options.command, "--coordinator", coordinator]
    shared += ["--num-processes", str(options.processes), "--heartbeat-timeout", str(options.heartbeat_timeout)]
    return [[*shared, "--process-id", str(number)] for number in range(options.processes)]


def _parse() -> argparse.Namespace:
    parser = Parser(
        description="Runs a training command in several processes on this machine.",
        usage="%(prog)s [options] -- sft|grpo ...",
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--devices", type=int, default=1, help="simulated CPU devices of each process (default: %(default)s)"
    )
    parser.add_argument("--kill-after", type=float, metavar="SECONDS", help="kill the last process after this time")
    parser.add_argument(
        "--corpus", type=Path, metavar="DIR", help="start a tools server with this corpus for the processes"
    )
    parser.add_argument("--restarts", type=int, default=3, help="largest number of restarts (default: %(default)s)")
    parser.add_argument("--heartbeat-timeout", type=int, default=30, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--dry-run", action="store_true", help="check the command, print the processes, start nothing")
    parser.add_argument("command", nargs="+", help="a training command of mmsearch and its arguments")
    options = parser.parse_args()
    if options.command[0] not in ("sft", "grpo"):
        parser.error(f"'{options.command[0]}' does not run in several processes: use sft or grpo")
    if options.processes < 1 or options.devices < 1:
        parser.error("--processes and --devices must be at least 1")
    return options


def _workdir(command: list[str]) -> str:
    for i, argument in enumerate(command):
        if argument == "--workdir" and i + 1 < len(command):
            return command[i + 1]
        if argument.startswith("--workdir="):
            return argument.removeprefix("--workdir=")
    return f"runs/{command[0]}"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "nothing")


def _say(text: str) -> None:
    print(f"[rehearsal] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
