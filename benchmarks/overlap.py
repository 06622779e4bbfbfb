"""The gain of `grpo.overlap` when searches are slow: python -m benchmarks.overlap [--checkpoint DIR] [--json FILE].

Two runs of `mmsearch grpo` on the mini-world, with and without overlap, from the SFT policy that `make quickstart` leaves. A
proxy before the search server delays every search by a log-normal time (mean 1 s, sigma 1; the same seed in both runs).
The seconds per step are compared, without the first two steps, which compile.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from benchmarks.table import Measured, command_line, report
from mmsearch_jax.core.config_files import load
from mmsearch_jax.jobs.search_server import start_server
from mmsearch_jax.jobs.worlds import TRAINING_WORLD, prepare_world
from mmsearch_jax.settings.commands import GRPOSettings

_CONFIG = Path(__file__).parents[1] / "configs" / "tiny_grpo.py"
_MEAN_S, _SIGMA, _COMPILING = 1.0, 1.0, 2
_LONG = {"grpo.num_steps": 12}
_QUICK = {
    # All of so few groups may be uniform; the update would then compile late.
    "grpo.num_steps": 3,
    "grpo.skip_uniform": False,
    "grpo.prompts_per_step": 2,
    "grpo.group_size": 4,
    "grpo.batch.rows": 2,
    "grpo.batch.images": 4,
    "world.num_lands": 24,
    "world.num_grpo_lands": 12,
    "world.num_sft_rows": 8,
    "world.num_grpo_rows": 48,
}


@contextmanager
def slow_proxy(url: str) -> Iterator[str]:
    """The address of a proxy that forwards requests to `url`, searches after a delay."""
    loop, address = asyncio.new_event_loop(), threading.Event()
    found: list[str] = []
    rng = np.random.default_rng(0)

    async def serve() -> None:
        async with aiohttp.ClientSession() as session:

            async def forward(request: web.Request) -> web.Response:
                if request.method == "POST":
                    await asyncio.sleep(rng.lognormal(np.log(_MEAN_S) - _SIGMA**2 / 2, _SIGMA))
                body = await request.read()
                async with session.request(
                    request.method, url + request.path, data=body, headers=_kind(request)
                ) as reply:
                    return web.Response(status=reply.status, body=await reply.read(), content_type=reply.content_type)

            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{path:.*}", forward)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            found.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
            address.set()
            try:
                await asyncio.Event().wait()
            finally:
                await runner.cleanup()

    task = loop.create_task(serve())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.gather(task, return_exceptions=True)))
    thread.start()
    if not address.wait(30):
        raise SystemExit("the proxy did not start")
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _kind(request: web.Request) -> dict[str, str]:
    return {"Content-Type": request.content_type} if request.can_read_body else {}


def step_seconds(workdir: Path, settings: dict[str, Any]) -> list[float]:
    """Seconds of each step of a run, without those that compile."""
    command = [
        sys.executable,
        "-m",
        "mmsearch_jax.commands.main",
        "grpo",
        "--config",
        str(_CONFIG),
        "--workdir",
        str(workdir),
        "--compilation-cache",
        str(workdir.parent / "compiled"),
        *_flags(settings),
    ]
    subprocess.run(command, check=True)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["step_seconds"] for record in records if "step_seconds" in record][_COMPILING:]


def _flags(settings: dict[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


def main() -> None:
    """Prints both medians and their ratio."""
    parser = command_line(
        "The gain of one-step-off overlap with slow searches.", "three steps of two small groups", within="two minutes"
    )
    parser.add_argument("--checkpoint", default="runs/quickstart/policies/sft", help="default: %(default)s")
    options = parser.parse_args()
    if not Path(options.checkpoint).is_dir():
        raise SystemExit(f"no policy at {options.checkpoint}: run `make quickstart`, or name one with --checkpoint")
    sizes = _QUICK if options.quick else _LONG
    seconds: dict[bool, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {overlap: Path(temporary) / str(overlap) for overlap in (False, True)}
        wanted = load(GRPOSettings, _CONFIG, _flags(sizes)).settings
        worlds = [prepare_world(wanted, folder, TRAINING_WORLD) for folder in folders.values()]
        for overlap, folder in folders.items():
            with start_server(worlds[0] / "corpus") as server, slow_proxy(server.url) as url:
                settings = sizes | {
                    "checkpoint": options.checkpoint,
                    "tools.url": url,
                    "grpo.overlap": overlap,
                    "grpo.loss.importance_cap": 2.0,
                }
                seconds[overlap] = statistics.median(step_seconds(folder, settings))
    print(f"seconds a step: {seconds[False]:.1f}, with overlap {seconds[True]:.1f}")
    ratio = seconds[False] / seconds[True]
    report({"grpo step, overlap": Measured(ratio, "x", "above 1", ratio > 1)}, options.json)


if __name__ == "__main__":
    main()
