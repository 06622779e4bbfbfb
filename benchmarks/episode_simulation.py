"""A discrete-event simulation of GRPO with live search: episodes wait for slots, search quota, servers, summariser and judge.

Each resource is a first-come, first-served queue with a number of servers. The start and the end of a service are computed at
arrival, so each stage needs one event. Time is in simulated seconds. The simulation knows nothing of meshes or models: the
times of device programs are inputs.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

PARTS = ("slots", "device", "quota", "search", "server", "summariser", "judge")
"""The parts of an episode's time; for slots and quota only the waiting time."""


class Station:
    """A queue with `servers` servers; arrivals must be in order of time."""

    def __init__(self, servers: int):
        self._free = [0.0] * servers

    def serve(self, now: float, seconds: float) -> tuple[float, float]:
        """Start and end of a service of this length that arrives now."""
        begin = max(now, self._free[0])
        heapq.heapreplace(self._free, begin + seconds)
        return begin, begin + seconds


@dataclasses.dataclass(frozen=True)
class Delay:
    """Log-normal seconds (median, sigma of the logarithm) or a resample of measured ones; at most `deadline`."""

    median: float
    sigma: float
    deadline: float = 60.0
    measured: tuple[float, ...] = ()

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random delays, float [count]."""
        if self.measured:
            drawn = rng.choice(np.asarray(self.measured), count)
        else:
            drawn = self.median * np.exp(self.sigma * rng.standard_normal(count))
        return np.minimum(drawn, self.deadline)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A run on a pod.

    Attributes:
      hosts, slots: machines, and slots of each machine's engine.
      prompts, group_size, oversample: of a step, of all hosts; see `learners.grpo.GRPOConfig`.
      overlap: roll out while learning, one step off; then both share the chips.
      decode_seconds: of one token of all of a host's slots; extend_seconds: of an observation.
      turn_tokens, token_sigma: median and log-normal sigma of a turn's length.
      calls_on: chance that a turn ends in a search, at most `max_calls` of an episode.
      learn_seconds: of a step's update; sync_seconds: of the weights to the engines.
      quota: searches a second that the providers allow.
      replicas, server_cpus, server_seconds: of the tools server, and its own work on a call.
    """

    hosts: int
    slots: int
    prompts: int
    learn_seconds: float
    group_size: int = 8
    oversample: int = 0
    overlap: bool = False
    decode_seconds: float = 0.010
    extend_seconds: float = 0.060
    turn_tokens: float = 120.0
    token_sigma: float = 0.6
    calls_on: float = 0.75
    max_calls: int = 10
    sync_seconds: float = 2.0
    quota: float = 1000.0
    search: Delay = Delay(1.2, 0.7)
    replicas: int = 8
    server_cpus: int = 2
    server_seconds: float = 0.015
    summarisers: int = 512
    summary: Delay = Delay(1.0, 0.5)
    judges: int = 256
    judge: Delay = Delay(0.8, 0.5)


@dataclasses.dataclass
class Step:
    """The result of a step: seconds by part of its slowest kept episode, and means of all; calls of cut-off episodes count."""

    seconds: float
    rollout_seconds: float
    episodes: int
    calls: int
    at_once: int
    mean_episode: float
    critical: dict[str, float]
    mean_parts: dict[str, float]


@dataclasses.dataclass(slots=True)
class _Episode:
    group: int
    host: int
    begun: float
    parts: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    calls: int = 0


class Simulation:
    """Successive steps of one scenario; the queues keep their backlog from step to step."""

    def __init__(self, scenario: Scenario, seed: int = 0):
        self.scenario, self._rng = scenario, np.random.default_rng(seed)
        self._engines = [Station(scenario.slots) for _ in range(scenario.hosts)]
        # A rate limit is a single server whose service time is the inverse of the rate.
        self._quota = Station(1)
        self._server = Station(scenario.replicas * scenario.server_cpus)
        self._summariser, self._judge = Station(scenario.summarisers), Station(scenario.judges)
        self._draws = {
            "search": _stream(lambda n: scenario.search.draw(self._rng, n)),
            "summary": _stream(lambda n: scenario.summary.draw(self._rng, n)),
            "judge": _stream(lambda n: scenario.judge.draw(self._rng, n)),
            "tokens": _stream(lambda n: Delay(scenario.turn_tokens, scenario.token_sigma, 1024).draw(self._rng, n)),
            "goes_on": _stream(lambda n: self._rng.random(n)),
        }
        self._now = self._unlearnt = self._shared_until = 0.0
        self.events = self.calls = 0

    def run(self, num_steps: int) -> list[Step]:
        """The next steps; each begins when the engines have the weights of the previous one."""
        return [self._step() for _ in range(num_steps)]

    def _step(self) -> Step:
        began, learn = self._now, self.scenario.learn_seconds
        rolled = self._roll_out(began)
        ended = rolled.pop("ended")
        if not self.scenario.overlap:
            self._now = ended + learn + self.scenario.sync_seconds
        else:
            # The last batch was trained meanwhile at half the speed of the chips; the rest of it is trained at full speed.
            left = max(0.0, self._unlearnt - (ended - began) / 2)
            self._now = ended + left + self.scenario.sync_seconds
            self._unlearnt, self._shared_until = learn, self._now + 2 * learn
        return Step(self._now - began, ended - began, **rolled)

    def _roll_out(self, began: float) -> dict[str, Any]:
        scenario = self.scenario
        size = scenario.group_size + scenario.oversample
        queue: list[tuple[float, int, Callable[[float, _Episode], tuple[float, Callable] | None], _Episode]] = []
        numbers = itertools.count()
        for group in range(scenario.prompts):
            for _ in range(size):
                # Each host rolls out its share of the prompts.
                heapq.heappush(
                    queue, (began, next(numbers), self._turn, _Episode(group, group % scenario.hosts, began))
                )
        at_once = len(queue)
        kept = [0] * scenario.prompts
        ends: list[tuple[float, _Episode]] = []
        calls = self.calls
        while queue and len(ends) < scenario.prompts * scenario.group_size:
            now, _, stage, episode = heapq.heappop(queue)
            self.events += 1
            if kept[episode.group] == scenario.group_size:
                continue  # cut off: its group is full
            after = stage(now, episode)
            if after is None:
                kept[episode.group] += 1
                ends.append((now, episode))
            else:
                heapq.heappush(queue, (after[0], next(numbers), after[1], episode))
        ended, last = max(ends, key=lambda end: end[0])
        return {
            "ended": ended,
            "episodes": len(ends),
            "calls": self.calls - calls,
            "at_once": at_once,
            "mean_episode": float(np.mean([end - episode.begun for end, episode in ends])),
            "critical": last.parts,
            "mean_parts": {part: float(np.mean([episode.parts[part] for _, episode in ends])) for part in PARTS},
        }

    def _turn(self, now: float, episode: _Episode) -> tuple[float, Callable]:
        """Prefill or extend, then decode, in a slot."""
        scenario = self.scenario
        seconds = scenario.extend_seconds + next(self._draws["tokens"]) * scenario.decode_seconds
        if now < self._shared_until:
            # The learner uses half of the chips' time.
            seconds *= 2
        begin, end = self._engines[episode.host].serve(now, seconds)
        episode.parts["slots"] += begin - now
        episode.parts["device"] += end - begin
        searches = episode.calls < scenario.max_calls and next(self._draws["goes_on"]) < scenario.calls_on
        return end, self._search if searches else self._verdict

    def _search(self, now: float, episode: _Episode) -> tuple[float, Callable]:
        """The server's own work, the wait for quota, the provider."""
        episode.calls += 1
        self.calls += 1
        _, worked = self._server.serve(now, self.scenario.server_seconds)
        episode.parts["server"] += worked - now
        allowed, _ = self._quota.serve(worked, 1 / self.scenario.quota)
        episode.parts["quota"] += allowed - worked
        delay = next(self._draws["search"])
        episode.parts["search"] += delay
        return allowed + delay, self._summary

    def _summary(self, now: float, episode: _Episode) -> tuple[float, Callable]:
        _, end = self._summariser.serve(now, next(self._draws["summary"]))
        episode.parts["summariser"] += end - now
        return end, self._turn

    def _verdict(self, now: float, episode: _Episode) -> tuple[float, Callable]:
        _, end = self._judge.serve(now, next(self._draws["judge"]))
        episode.parts["judge"] += end - now
        return end, self._done

    def _done(self, now: float, episode: _Episode) -> None:
        return None


def _stream(draw: Callable[[int], np.ndarray]) -> Iterator[float]:
    """Random numbers one by one, drawn in batches of thousands."""
    while True:
        yield from draw(4096).tolist()


def mean_steps(steps: Sequence[Step]) -> tuple[float, dict[str, float]]:
    """Mean seconds of a step, and of what the slowest episode's were spent on, with learning."""
    seconds = float(np.mean([step.seconds for step in steps]))
    parts = {part: float(np.mean([step.critical[part] for step in steps])) for part in PARTS}
    parts["learner"] = seconds - float(np.mean([step.rollout_seconds for step in steps]))
    return seconds, parts
