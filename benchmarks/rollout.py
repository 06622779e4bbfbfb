"""How well rollouts keep the device busy while tools are slow, with a scripted policy and mock tools.

    python -m benchmarks.rollout [--quick] [--json FILE]

Lockstep rolls out batches of 64 and holds every reply until the whole batch waits for one; tools take log-normal times with a
mean of 1 s, sigma 1. Both decode 64 episodes at once; ours keeps the caches of 128 more that wait for a tool, and samples the
same trajectories. Then, measured separately: the share of the decode width (16) that is used while episodes wait to begin, the
share of prompt tokens that groups of 8 do not prefill again, host time (all time except the device's programs) with 64 slots,
and resources that are not freed after many episodes with failing tools.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.stand_ins import scripted
from benchmarks.stand_ins.scripted import CONFIG, Play
from benchmarks.table import Measured, command_line, report
from mmsearch_jax.core.errors import ToolFailed
from mmsearch_jax.core.protocol import Answer, TextSearch, render_turn
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.core.trajectory import Trajectory
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.settings.rollout import EngineConfig

NUM_PLAYS = 16
WHY = "This is the time of Python itself, which differs between processors."
"""The reason for the host time."""


class MockTools:
    """Answers every query after a time drawn from a lognormal distribution; the same query always takes the same time.

    Args:
      mean_s, sigma: of the latency (mean in seconds, sigma of its logarithm).
      failures: share of the calls that fail.
    """

    def __init__(self, mean_s: float, sigma: float = 1.0, failures: float = 0.0):
        self._mu, self._sigma, self._failures = np.log(max(mean_s, 1e-9)) - sigma**2 / 2, sigma, failures
        self._calls = 0

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        """Waits, then answers or fails."""
        self._calls += 1
        seed = int.from_bytes(hashlib.sha256(query.encode()).digest()[:4])
        await asyncio.sleep(float(np.random.default_rng(seed).lognormal(self._mu, self._sigma)))
        if np.random.default_rng(self._calls).random() < self._failures:
            raise ToolFailed("HTTP 500")
        return scripted.hit(query)


class LockstepTools:
    """Holds the replies of `tools` back until every running episode waits for one."""

    def __init__(self, tools: MockTools, running: int):
        self._tools, self._running, self._waiting = tools, running, 0
        self._round = asyncio.Event()

    def ended(self, trajectory: Trajectory) -> None:
        """An episode has ended: the round no longer waits for it."""
        self._running -= 1
        self._release()

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        """The reply, at the end of the round."""
        reply = await self._tools.text_search(query, top_k)
        self._waiting += 1
        this_round = self._round
        self._release()
        await this_round.wait()
        return reply

    def _release(self) -> None:
        if self._waiting and self._waiting == self._running:
            self._waiting = 0
            self._round.set()
            self._round = asyncio.Event()


def plays(searches: Callable[[int], int]) -> list[Play]:
    """Scripts that search and then answer."""
    made = []
    for number in range(1, NUM_PLAYS + 1):
        turns = [render_turn("I must look.", TextSearch(f"{number}-{i}")) for i in range(searches(number))]
        made.append(Play(number, [*turns, render_turn("So it is.", Answer("Lima"))]))
    return made


def make_engine(scripts: list[Play], width: int, num_slots: int) -> Engine:
    """An engine that plays the scripts."""
    config = EngineConfig(
        num_slots=num_slots,
        decode_width=width,
        max_length=scripted.MAX_LENGTH,
        extend_rows=(16,),
        extend_buckets=(64, 128),
        decode_rows=(16,),
        length_buckets=(),
        decode_steps=16,
    )
    return scripted.engine(*scripts, config=config)


def requests(scripts: list[Play], count: int) -> list[EpisodeRequest]:
    """`count` episodes, the scripts in turn; those of one script are a group."""
    return [
        EpisodeRequest(f"q{play.number}", f"q{play.number}", play.question, scripted.picture(), seed=i)
        for i in range(count)
        for play in [scripts[i % len(scripts)]]
    ]


def measure_lockstep(count: int, mean_s: float) -> dict[str, float]:
    """Wall-clock times of the same episodes in lockstep and without it, and the occupancy of the latter."""
    scripts = plays(lambda number: number % 5)
    asked, batch = requests(scripts, count), 64
    rounds = make_engine(scripts, batch, batch)
    engine = make_engine(scripts, batch, 3 * batch)
    for each in (rounds, engine):
        # Compiles every program that the run needs.
        asyncio.run(run_episodes(each, asked, CONFIG, MockTools(0.0)))  # type: ignore[arg-type]

    async def lockstep() -> list[Trajectory]:
        done: list[Trajectory] = []
        for start in range(0, len(asked), batch):
            part = asked[start : start + batch]
            tools = LockstepTools(MockTools(mean_s), len(part))
            done += await run_episodes(rounds, part, CONFIG, tools, tools.ended)  # type: ignore[arg-type]
        return done

    began = time.monotonic()
    held = asyncio.run(lockstep())
    lockstep_s = time.monotonic() - began
    began = time.monotonic()
    free = asyncio.run(run_episodes(engine, asked, CONFIG, MockTools(mean_s)))  # type: ignore[arg-type]
    free_s = time.monotonic() - began
    assert [t.token_ids for t in free] == [t.token_ids for t in held], "the two runs differ"
    return {"lockstep_s": lockstep_s, "free_s": free_s}


def measure_occupancy(count: int) -> float:
    """Share of the decode width that is used, over the decode calls made while episodes are waiting to begin.

    A tool takes twice as long as the policy needs for a turn, on average; there are four times as many slots as decode at once.
    """
    scripts = plays(lambda number: number % 5)
    engine = make_engine(scripts, width=16, num_slots=64)
    asked = requests(scripts, count)
    begun: set[Any] = set()
    shares: list[float] = []
    acquire, decode = engine.acquire, engine.decode

    def acquired(sequence: Any) -> None:
        begun.add(sequence)
        acquire(sequence)

    def decoded(sequences: Any) -> Any:
        if len(begun) < count:
            shares.append(len(sequences) / engine.config.width)
        return decode(sequences)

    def run(mean_s: float) -> list[Trajectory]:
        return asyncio.run(run_episodes(engine, asked, CONFIG, MockTools(mean_s)))  # type: ignore[arg-type]

    run(0.0)  # Compiles.
    began = time.monotonic()
    turns = sum(len(trajectory.turns) for trajectory in run(0.0))
    turn_s = (time.monotonic() - began) * engine.config.width / turns
    engine.acquire, engine.decode = acquired, decoded  # type: ignore[method-assign]
    run(2 * turn_s)
    return float(np.mean(shares))


def measure_prefix() -> float:
    """Share of the prompt tokens of 8 groups of 8 that are copied instead of fed."""
    scripts = plays(lambda number: 0)[:8]
    engine = make_engine(scripts, 64, 64)
    asyncio.run(run_episodes(engine, requests(scripts, 64), CONFIG, None))
    return engine.stats.shared_tokens / (engine.stats.shared_tokens + engine.stats.extended_tokens)


def measure_host(count: int) -> float:
    """Microseconds per sampled token spent outside the device's programs."""
    scripts = plays(lambda number: number % 5)
    engine = make_engine(scripts, 64, 64)
    asked = requests(scripts, count)
    asyncio.run(run_episodes(engine, asked, CONFIG, MockTools(0.0)))  # type: ignore[arg-type]
    device = 0.0

    def timed(program: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal device
            began = time.perf_counter()
            result = jax.block_until_ready(program(*args, **kwargs))
            device += time.perf_counter() - began
            return result

        return run

    # Mock tools send no images, so nothing is encoded.
    engine._programs = engine._programs._replace(
        **{name: timed(getattr(engine._programs, name)) for name in ("extend", "decode", "copy")}
    )
    before, began = engine.stats.sampled_tokens, time.perf_counter()
    asyncio.run(run_episodes(engine, asked, CONFIG, MockTools(0.0)))  # type: ignore[arg-type]
    wall = time.perf_counter() - began
    return 1e6 * (wall - device) / (engine.stats.sampled_tokens - before)


def measure_leaks(count: int) -> int:
    """Slots, tasks and file descriptors that are not freed after episodes in which a third of the tool calls fail."""
    scripts = plays(lambda number: number % 3)
    engine = make_engine(scripts, 64, 64)
    batch = 1000

    async def work() -> int:
        await run_episodes(engine, requests(scripts, batch), CONFIG, MockTools(0.0, failures=0.3))  # type: ignore[arg-type]
        open_files, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        for _ in range(max(1, count // batch)):
            await run_episodes(engine, requests(scripts, batch), CONFIG, MockTools(0.0, failures=0.3))  # type: ignore[arg-type]
        slots = engine.config.num_slots - engine.free_slots
        return slots + len(asyncio.all_tasks()) - tasks + len(os.listdir("/proc/self/fd")) - open_files

    return asyncio.run(work())


def main() -> None:
    """Prints the table, and writes it as JSON if asked."""
    options = command_line("Rollouts with slow tools against lockstep rounds.", "fewer episodes").parse_args()
    times = measure_lockstep(192 if options.quick else 512, mean_s=0.3 if options.quick else 1.0)
    ratio = times["lockstep_s"] / times["free_s"]
    occupancy = measure_occupancy(64 if options.quick else 256)
    prefix, host = measure_prefix(), measure_host(128 if options.quick else 512)
    leaks = measure_leaks(1000 if options.quick else 10_000)
    print(f"lockstep rounds {times['lockstep_s']:.1f} s, ours {times['free_s']:.1f} s")
    rows = {
        "rollouts, against lockstep rounds": Measured(ratio, "x", "at least 2.5", ratio >= 2.5),
        "decode rows in use": Measured(100 * occupancy, "%", "at least 90", occupancy >= 0.9),
        "prompt tokens that a group shares": Measured(100 * prefix, "%", "at least 80", prefix >= 0.8),
        "host time a token": Measured(host, "us", "under 20", host < 20, why=WHY),
        "slots, tasks and files left behind": Measured(leaks, "", "none", leaks == 0),
    }
    report(rows, options.json)


if __name__ == "__main__":
    main()
