"""Rounds of device work, in threads: at most one per engine at a time, while the event loop serves tool calls.

An engine that plays a round must not be changed. What needs it idle waits here until the round has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from mmsearch_jax.rollout.sequence import LiveSequence


class Player(Protocol):
    """What plays rounds: an `Engine`."""

    def play(self, sequences: Sequence[LiveSequence], /) -> Sequence[LiveSequence]: ...
    def release(self, sequence: LiveSequence, /) -> None: ...


class Round(NamedTuple):
    """An ended round: the sequences that took part, and those whose turn has ended."""

    sequences: Sequence[LiveSequence]
    finished: Sequence[LiveSequence]


class Rounds:
    """All methods must be called on one event loop."""

    def __init__(self, engines: Sequence[Player]):
        self._engines = engines
        self._threads = ThreadPoolExecutor(len(engines), "engine")
        self._running: dict[int, tuple[asyncio.Future[Sequence[LiveSequence]], Sequence[LiveSequence]]] = {}
        """By the engine's number."""
        self._released: list[LiveSequence] = []

    @property
    def futures(self) -> list[asyncio.Future[Sequence[LiveSequence]]]:
        """Those of the running rounds."""
        return [future for future, _ in self._running.values()]

    @property
    def all_busy(self) -> bool:
        """Whether every engine plays a round."""
        return len(self._running) == len(self._engines)

    def plays(self, engine: Player) -> bool:
        """Whether the engine plays a round."""
        return any(self._engines[number] is engine for number in self._running)

    def start(self, sequences: Sequence[LiveSequence]) -> None:
        """Starts a round on each idle engine for which there is work.

        Args:
          sequences: those that hold a slot and are not parked, in the order in which they are served.
        """
        loop = asyncio.get_running_loop()
        for number, engine in enumerate(self._engines):
            own = [sequence for sequence in sequences if sequence.engine is engine]
            if own and number not in self._running:
                self._running[number] = loop.run_in_executor(self._threads, engine.play, own), own

    def ended(self) -> list[Round]:
        """The rounds that have ended since the last call.

        Raises:
          Exception: whatever stopped a round.
        """
        done = [number for number, (future, _) in self._running.items() if future.done()]
        rounds = [self._running.pop(number) for number in done]
        waiting, self._released = self._released, []
        for sequence in waiting:
            self.release(sequence)
        return [Round(sequences, future.result()) for future, sequences in rounds]

    def release(self, sequence: LiveSequence) -> None:
        """Takes the sequence's slot back: at once, or when its engine's round has ended."""
        engine = sequence.engine
        if engine is None:
            return
        if self.plays(engine):
            self._released.append(sequence)
        else:
            engine.release(sequence)

    async def close(self) -> None:
        """Waits for the running rounds, whatever their outcome."""
        await asyncio.gather(*self.futures, return_exceptions=True)
        self._running = {}
        for sequence in self._released:
            sequence.engine.release(sequence)
        self._released = []
        self._threads.shutdown()
