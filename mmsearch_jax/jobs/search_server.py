"""Starts the search server as a separate process and stops it again, for the quickstart, the trainers and tests."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmsearch_jax.core import search_api
from mmsearch_jax.core.bundled import REPOSITORY
from mmsearch_jax.core.errors import ToolUnavailable


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server: its address and its process."""

    url: str
    pid: int


@contextmanager
def start_server(
    corpus: str | Path, host: str = "127.0.0.1", port: int = 0, timeout_s: float = 60.0, arguments: Sequence[str] = ()
) -> Iterator[Server]:
    """Runs `python -m tools_server` on a corpus while the block runs.

    Args:
      arguments: additional arguments of its command line, such as `--config.cache.mode=live`.

    Raises:
      ToolUnavailable: the server ended at once (with its own message) or was not ready within `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="tools-server-") as folder:
        port_file, log_file = Path(folder) / "port", Path(folder) / "log"
        command = [sys.executable, "-m", "tools_server", "--corpus", str(corpus), "--host", host]
        command += ["--port", str(port), "--port-file", str(port_file), *arguments]
        # One thread for linear algebra: the trainer needs the cores, and the products are small.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if REPOSITORY is not None:
            # A clone need not be installed, and the server must run the same code as this process.
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        try:
            url = _wait_ready(process, host, port_file, log_file, timeout_s)
            yield Server(url, process.pid)
        finally:
            _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], host: str, port_file: Path, log_file: Path, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log_file.read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
            message = last[0].removeprefix("error: ")
            raise ToolUnavailable(f"the search server ended with code {process.returncode}: {message}")
        if port_file.is_file():
            url = f"http://{host}:{int(port_file.read_text())}"
            if _is_ready(url):
                return url
        time.sleep(0.02)
    raise ToolUnavailable(
        f"the search server was not ready after {timeout_s:g} s; check that the machine is not overloaded"
    )


def _is_ready(url: str) -> bool:
    # Requests to this machine must not go through a proxy from the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url + search_api.ROUTE_READY, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
