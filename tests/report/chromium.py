"""Headless Chromium, driven by its DevTools protocol: opens files, records errors and requests."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """The browser on PATH.

    Raises:
      FileNotFoundError: no browser is on PATH.
    """
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(f"none of {', '.join(NAMES)} is on PATH: make test-browser installs one")


class Page:
    """One tab. `errors` holds its errors, `requests` all requested addresses except data URLs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse):
        self._loop, self._socket, self._numbers = loop, socket, itertools.count(1)
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), 60))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._heard(message["method"], message["params"])

    def _heard(self, event: str, what: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(what["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(what["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(what["args"]))
        elif event == "Network.requestWillBeSent" and not what["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(what["request"]["url"])

    def js(self, expression: str) -> Any:
        """The value of an expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 60.0) -> None:
        """Waits until an expression is true."""
        give_up = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < give_up, f"still not {expression}: {self.errors}"
            time.sleep(0.02)

    def open(self, path: Path, width: int = 1200, height: int = 900) -> None:
        """Opens a report and waits until its episodes are listed."""
        self.resize(width, height)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete' && document.querySelector('#browser')?.dataset.ready")

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def choose(self, name: str, value: str) -> None:
        """Sets a filter."""
        self.js(f"""(() => {{ const f = document.querySelector('[data-filter="{name}"]'); f.value = {json.dumps(value)};
            if (f.value !== {json.dumps(value)}) throw new Error("no such choice");
            f.dispatchEvent(new Event("change")); }})()""")

    def screenshot(self, path: Path, **options: Any) -> None:
        """Writes a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"]))


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A browser with one tab and its own profile."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            executable(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-component-update",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            port = _port(process, Path(profile) / "DevToolsActivePort")
            session, socket = loop.run_until_complete(_connect(port))
            try:
                yield Page(loop, socket)
            finally:
                loop.run_until_complete(socket.close())
                loop.run_until_complete(session.close())
        finally:
            process.terminate()
            process.wait(20)
            loop.close()


def _port(process: subprocess.Popen, file: Path) -> int:
    give_up = time.monotonic() + 60
    while not (file.is_file() and file.read_text().strip()):
        assert process.poll() is None, f"the browser ended with code {process.returncode}"
        assert time.monotonic() < give_up, "the browser did not start"
        time.sleep(0.05)
    return int(file.read_text().split()[0])


async def _connect(port: int) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession(trust_env=False)
    async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
        targets = await response.json()
    address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
    return session, await session.ws_connect(address, max_msg_size=0)
