"""The search server under load: searches per second, and the effect of slow and broken providers.

    python -m benchmarks.tools_server [--quick] [--json FILE]

All servers are processes on this machine, with 64 connections unless stated otherwise. Cached searches are compared with a
retriever of Search-R1's design (FastAPI, a blocking handler) that serves the same index in the same run for the same queries;
without the cache both search the index for every request. 1,000 slow calls wait at once for a provider that takes 5 s, while
cached searches arrive. The flaky provider fails 30 % of its calls, hangs in 5 % and answers 429 to 10 %; the load is three
times its budget of calls, with each query four times at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.http_load import Load, load
from benchmarks.peers import environment, measuring
from benchmarks.stand_ins.upstreams import Upstream
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.core import search_api
from mmsearch_jax.jobs.search_server import Server, start_server

CONNECTIONS, DEADLINE_S, SLOW_S = 64, 20.0, 5.0
_VOCABULARY, _WORDS = 20_000, 40
_SAME_INDEX = (
    "Without the cache both servers spend their time in the same index, on the cores that also make the load. The "
    "ratio is 1 except for noise (1.4 in an earlier run)."
)


def write_corpus(folder: Path, pages: int) -> list[str]:
    """Pages of invented words with Zipfian frequencies; returns queries of the three rarest words of a page each."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    queries = []
    with (folder / "pages.jsonl").open("w", encoding="utf-8") as out:
        for i in range(pages):
            numbers = rng.zipf(1.3, _WORDS) % _VOCABULARY
            words = [f"w{n}" for n in numbers]
            title = f"Page {i}"
            out.write(
                json.dumps({"id": str(i), "title": title, "url": f"https://x.example/{i}", "text": " ".join(words)})
                + "\n"
            )
            queries.append(" ".join(f"w{n}" for n in sorted(set(numbers.tolist()))[-3:]))
    (folder / "images.jsonl").write_text("", encoding="utf-8")
    return queries[:500]


@contextmanager
def peer(corpus: Path) -> Iterator[int]:
    """The peer's server on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parent / "peers" / "fastapi_retriever.py"
    process = subprocess.Popen([str(environment("fastapi")), str(script), str(corpus), str(port)])
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the peer ended"
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def measure_speed(folder: Path, quick: bool) -> dict[str, Measured]:
    """Cached searches and their p99, and searches without the cache."""
    corpus, (turns, searches) = folder / "corpus", (1, 4_000) if quick else (5, 8_000)
    queries = write_corpus(corpus, 2_000 if quick else 20_000)

    def our_body(i: int) -> Any:
        return {"query": queries[i % len(queries)], "top_k": 5}

    def their_body(i: int) -> Any:
        return {"queries": [queries[i % len(queries)]], "topk": 5, "return_scores": True}

    cache = ["--config.cache.mode=live", f"--config.cache.path={folder / 'speed.sqlite'}"]
    with start_server(corpus, arguments=cache) as server, start_server(corpus) as uncached, peer(corpus) as other:

        def ask(port: int, route: str, body: Callable[[int], Any], count: int) -> dict[str, list[float]]:
            done = _sound(asyncio.run(load(port, route, body, CONNECTIONS, count)))
            return {"a search": [done.seconds_a_request], "of each": done.seconds}

        ours, theirs = (search_api.ROUTE_TEXT_SEARCH, our_body), (search_api.ROUTE_RETRIEVE, their_body)
        ask(_port(server), *ours, len(queries))
        ask(other, *theirs, len(queries))
        found = measuring.in_turns(
            turns,
            lambda: ask(_port(server), *ours, searches),
            lambda: ask(_port(uncached), *ours, searches // 8),
            lambda: ask(other, *theirs, searches // 8),
        )
    for name, values in zip(("ours", "ours, uncached", "FastAPI"), found, strict=True):
        print(
            f"{name} {1 / np.median(values['a search']):,.0f} a second, p99 {1e3 * np.quantile(values['of each'], 0.99):.1f} ms"
        )
    mine, plain, fastapi = (values["a search"] for values in found)
    p99 = 1e3 * float(np.quantile(found[0]["of each"], 0.99))
    return {
        "cached searches, against FastAPI": faster(mine, fastapi, 5),
        "p99 of cached searches": Measured(p99, "ms", "below 50", p99 < 50),
        "searches without the cache, against FastAPI": faster(plain, fastapi, 1, _SAME_INDEX),
    }


@contextmanager
def web_server(folder: Path, upstream: Upstream, *arguments: str) -> Iterator[Server]:
    """A server whose text searches go to `upstream`, in the form of Serper."""
    os.environ["SERPER_API_KEY"] = "benchmark"
    settings = {
        "text.backends": "('serper',)",
        "image.backends": "()",
        "backends.serper.url": upstream.url,
        "backends.serper.calls_per_s": 10_000.0,
        "backends.serper.max_concurrency": 2_000,
        "cache.mode": "live",
        "cache.path": folder / "web.sqlite",
        "limits.deadline_s": DEADLINE_S,
    }
    with start_server(
        "", arguments=[*(f"--config.{key}={value}" for key, value in settings.items()), *arguments]
    ) as server:
        yield server


async def _measure_slow(folder: Path, quick: bool) -> dict[str, Measured]:
    calls, cached = (200, 1_000) if quick else (1_000, 8_000)
    loop = asyncio.get_running_loop()
    async with Upstream("serper", lambda n: "ok" if n == 0 else "slow", slow_s=SLOW_S) as upstream:
        with web_server(folder, upstream, "--config.backends.serper.attempt_timeout_s=15.0") as server:
            port = _port(server)

            def known(i: int) -> Any:
                return {"query": "known"}

            _sound(await load(port, search_api.ROUTE_TEXT_SEARCH, known, 1, 1))
            before = _resident_mib(server)
            slow = asyncio.ensure_future(
                load(port, search_api.ROUTE_TEXT_SEARCH, lambda i: {"query": f"slow {i}"}, calls, calls)
            )
            while upstream.in_flight < calls and not slow.done():
                await asyncio.sleep(0.01)
            began = loop.time()
            quick_ones = _sound(await load(port, search_api.ROUTE_TEXT_SEARCH, known, 16, cached))
            during = _resident_mib(server)
            print(f"{calls} slow calls in flight for {loop.time() - began:.1f} s: {before:.0f} -> {during:.0f} MiB")
            answered = (await slow).statuses.get(200, 0) / calls
    p99, grown = quick_ones.quantile_ms(0.99), during / before
    return {
        "slow calls at once, answered": Measured(100 * answered, "%", "all", answered == 1),
        "memory under slow calls / before": Measured(grown, "x", "below 1.5", grown < 1.5),
        "p99 of cached searches under slow calls": Measured(p99, "ms", "below 50", p99 < 50),
    }


async def _measure_faults(folder: Path, quick: bool) -> dict[str, Measured]:
    queries = 200 if quick else 1_000
    rng = np.random.default_rng(1)
    ends = rng.choice(["error", "hang", "429", "ok"], p=[0.3, 0.05, 0.1, 0.55], size=100 * queries)
    async with Upstream("serper", lambda n: str(ends[n]), retry_after="1") as upstream:
        with web_server(folder, upstream, "--config.backends.serper.attempt_timeout_s=2.0") as server:
            # Each query four times at once, as from the rollouts of a group.
            found = await load(
                _port(server), search_api.ROUTE_TEXT_SEARCH, lambda i: {"query": f"q{i // 4}"}, CONNECTIONS, 4 * queries
            )
        twice = sum(count > 1 for count in upstream.paid.values())
    answered = found.statuses.get(200, 0) / (4 * queries)
    print(f"{4 * queries} searches, {len(upstream.requests)} calls, statuses {found.statuses}")
    return {
        "flaky provider, answered in time": Measured(100 * answered, "%", "at least 99.5", answered >= 0.995),
        "flaky provider, queries paid twice": Measured(
            twice, "", "none", twice == 0 and len(upstream.paid) >= 0.99 * queries
        ),
    }


async def _measure_budget(folder: Path, quick: bool) -> dict[str, Measured]:
    budget = 100 if quick else 500
    rng = np.random.default_rng(2)
    ends = rng.choice(["error", "429", "ok"], p=[0.3, 0.1, 0.6], size=100 * budget)
    async with Upstream("serper", lambda n: str(ends[n]), retry_after="0") as upstream:
        with web_server(folder, upstream, f"--config.budget.max_calls={budget}", "--config.budget.run=b") as server:
            found = await load(
                _port(server), search_api.ROUTE_TEXT_SEARCH, lambda i: {"query": f"b{i}"}, CONNECTIONS, 3 * budget
            )
    over = len(upstream.requests) - budget
    print(f"budget of {budget} calls, {3 * budget} searches: {len(upstream.requests)} calls, statuses {found.statuses}")
    return {
        "flaky provider, calls beyond the budget": Measured(
            over, "", "none", over == 0 and found.statuses.get(402, 0) > budget
        )
    }


def _sound(found: Load) -> Load:
    """Raises if a request failed, so that a failed run cannot look fast."""
    assert set(found.statuses) == {200}, found.statuses
    return found


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def _resident_mib(server: Server) -> float:
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = command_line((__doc__ or "").splitlines()[0], "smaller loads").parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = measure_speed(folder, options.quick)
        for measure in (_measure_slow, _measure_faults, _measure_budget):
            part = folder / measure.__name__
            part.mkdir()
            rows |= asyncio.run(measure(part, options.quick))
    report(rows, options.json)


if __name__ == "__main__":
    main()
