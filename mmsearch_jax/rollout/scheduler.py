"""Runs many episodes concurrently: gives them slots of the engines, parks them during tool calls, and resumes them.

Tool calls run on the event loop while the devices decode in threads, so a slow search does not delay other episodes. The
scheduler decides when things happen; `rollout.episode` decides what an episode does next.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable, Sequence

from mmsearch_jax.core.errors import ImageError, ToolError
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.rollout.engine_group import Sampler
from mmsearch_jax.rollout.episode import CallTool, Done, Episode, Generate, Need
from mmsearch_jax.rollout.live_episode import EpisodeRequest, LiveEpisode, Watch
from mmsearch_jax.rollout.rounds import Rounds
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.rollout.tool_client import ToolClient, Tools, call_tool
from mmsearch_jax.settings.rollout import EpisodeConfig

Progress = Callable[[Trajectory], None]

_SURPLUS = (Status.SURPLUS, "enough episodes of its group had ended")

_PATIENCE_S = 0.1
"""A parked episode keeps its slot at least this long: most searches answer before its tokens could be fed again."""


async def run_episodes(
    engine: Sampler,
    requests: Sequence[EpisodeRequest],
    config: EpisodeConfig,
    tool_client: ToolClient | None,
    progress: Progress | None = None,
    *,
    episode_deadline_s: float | None = None,
    keep_per_group: int | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[Trajectory]:
    """Runs every request to its end.

    Args:
      tool_client: may be None when the mode calls no tool ("direct").
      progress: called with each trajectory as it ends.
      episode_deadline_s: seconds from an episode's start after which it ends with status "deadline".
      keep_per_group: once this many episodes of a group have ended without an infrastructure failure, its others end with
        status "surplus". A caller that asks for a few more than it needs does not wait for the slowest.
      watch: called with a `LiveEpisode` whenever it has changed.
      stop: asked before each episode begins; once it returns True, no further episode begins, and the running ones finish.

    Returns:
      Trajectories in the order of the requests. A tool that failed gives status "tool_failed", never a wrong
      answer; an image that cannot be shown gives "unusable". An episode that never began keeps status "running".

    Raises:
      ValueError: the engine's slots are shorter than `config.max_trajectory_tokens`.
    """
    scheduler = Scheduler(engine, config, tool_client, progress, episode_deadline_s, keep_per_group, watch)
    return await scheduler.run(requests, stop)


def run_episodes_sync(
    engine: Sampler,
    requests: Sequence[EpisodeRequest],
    config: EpisodeConfig,
    tool_client: ToolClient | None,
    progress: Progress | None = None,
    *,
    episode_deadline_s: float | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[Trajectory]:
    """`run_episodes` for callers without an event loop."""

    async def main() -> list[Trajectory]:
        try:
            return await run_episodes(
                engine,
                requests,
                config,
                tool_client,
                progress,
                episode_deadline_s=episode_deadline_s,
                watch=watch,
                stop=stop,
            )
        finally:
            if tool_client is not None:
                await tool_client.close()

    return asyncio.run(main())


class Scheduler:
    """Runs episodes on the engines of this process. `run_episodes` gives it a list of requests; a server adds runs one by one
    (`add`, `cancel`, `serve`). All methods must be called on one event loop.
    """

    def __init__(
        self,
        engine: Sampler,
        config: EpisodeConfig,
        tool_client: Tools | None,
        progress: Progress | None = None,
        deadline_s: float | None = None,
        keep_per_group: int | None = None,
        watch: Watch | None = None,
    ):
        if config.max_trajectory_tokens > engine.config.max_length:
            raise ValueError(
                f"max_trajectory_tokens {config.max_trajectory_tokens} exceeds the engine's max_length "
                f"{engine.config.max_length}: lower the one or raise the other"
            )
        self._engine, self._config, self._tools = engine, config, tool_client
        self._progress, self._deadline_s, self._keep = progress, deadline_s, keep_per_group
        self._watch, self._rounds = watch, Rounds(engine.engines)
        self._sound: collections.Counter[str] = collections.Counter()
        """By group: episodes that ended without an infrastructure failure."""
        self._waiting: collections.deque[LiveEpisode] = collections.deque()
        """Runs that need the device and hold no slot."""
        self._resident: list[LiveEpisode] = []
        """Runs that hold a slot: they decode, wait to be fed, or are parked."""
        self._calling: set[LiveEpisode] = set()
        """Runs with a tool call in flight; with or without a slot."""
        self._news = asyncio.Event()
        """Set when a run was added or cancelled; wakes a scheduler that waits only for tools."""

    async def run(self, requests: Sequence[EpisodeRequest], stop: Callable[[], bool] | None = None) -> list[Trajectory]:
        trajectories = [
            Trajectory(f"{r.row_id}/{i}", r.row_id, r.group_id, r.seed, self._engine.policy_version)
            for i, r in enumerate(requests)
        ]
        fresh = collections.deque(zip(requests, trajectories, strict=True))
        try:
            while fresh or self.busy:
                if stop is not None and fresh and stop():
                    fresh.clear()
                self._start(fresh)
                await self.step()
        finally:
            await self.close()
        return trajectories

    @property
    def busy(self) -> bool:
        """Whether any run has not ended."""
        return bool(self._waiting or self._resident or self._calling)

    @property
    def num_waiting(self) -> int:
        """Runs that wait for a slot, at first or again."""
        return len(self._waiting)

    def add(self, run: LiveEpisode) -> None:
        """Begins a run; the next step includes it."""
        run.started = time.monotonic()
        self._follow(run, run.episode.begin())
        self._news.set()

    def cancel(self, run: LiveEpisode) -> None:
        """Ends a run (status "cancelled") at the next step, which frees its slot. A run that is done does not change."""
        run.cancelled = True
        self._news.set()

    async def serve(self) -> None:
        """Steps until this task is cancelled, and waits while there is nothing to do."""
        while True:
            if not self.busy:
                self._news.clear()
                await self._news.wait()
            await self.step()

    async def step(self) -> None:
        """Gives each idle engine a round of work, waits for news, and continues each run whose turn or search is finished."""
        self._expire()
        self._admit()
        self._rounds.start([run.sequence for run in self._ready()])
        await self._wait()
        self._follow_rounds()
        self._collect()

    async def close(self) -> None:
        """Frees all slots and cancels all searches; runs that have not ended keep status "running"."""
        await self._rounds.close()
        for run in self._runs():
            self._engine.release(run.sequence)
        tasks = [run.task for run in self._calling if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _runs(self) -> set[LiveEpisode]:
        return {*self._resident, *self._waiting, *self._calling}

    # Host side: starting, following, ending -----------------------------------------------------------------

    def _start(self, fresh: collections.deque[tuple[EpisodeRequest, Trajectory]]) -> None:
        """Begins as many episodes as can use a slot soon, so that images are not decoded long before they are used."""
        room = self._engine.config.width - len(self._ready()) - len(self._waiting)
        # Parked episodes need no slot, but their number must be bounded.
        room = min(room, 2 * self._engine.config.num_slots - len(self._calling))
        while fresh and room > 0:
            request, trajectory = fresh.popleft()
            if self._enough(request):
                trajectory.status, trajectory.error = _SURPLUS
                continue
            try:
                images = [self._engine.prepare_image(request.image)] if request.image else []
            except ImageError as error:
                trajectory.status, trajectory.error = Status.UNUSABLE, str(error)
                if self._progress is not None:
                    self._progress(trajectory)
                continue
            episode = Episode(
                trajectory,
                request.question,
                [image.grid for image in images],
                [image.num_tokens for image in images],
                self._config,
                self._engine.renderer,
                has_image=bool(images),
            )
            sequence = LiveSequence(trajectory.token_ids, images, request.seed, request.sampling, self._config.plain)
            self.add(LiveEpisode(request, episode, sequence, watch=self._watch))
            room -= 1

    def _follow(self, run: LiveEpisode, need: Need) -> None:
        match need:
            case Generate(max_tokens):
                self._engine.begin_turn(run.sequence, max_tokens)
                if run.sequence.slot is None:
                    self._waiting.append(run)
            case CallTool():
                run.call, run.called = need, time.monotonic()
                run.task = asyncio.get_running_loop().create_task(self._call(run.request, need))
                self._calling.add(run)
            case Done():
                self._end(run)
        if run.watch is not None:
            run.watch(run)

    def _end(self, run: LiveEpisode) -> None:
        if run in self._resident:
            self._resident.remove(run)
        if run in self._waiting:
            self._waiting.remove(run)
        self._calling.discard(run)
        if run.task is not None:
            run.task.cancel()
            run.task = None
        self._rounds.release(run.sequence)
        if run.started is not None:
            run.episode.trajectory.seconds = time.monotonic() - run.started
        if self._progress is not None:
            self._progress(run.episode.trajectory)
        if self._keep is not None and not run.episode.trajectory.infrastructure_failure:
            self._sound[run.request.group_id] += 1
            if self._enough(run.request):
                self._cut(run.request.group_id)

    def _enough(self, request: EpisodeRequest) -> bool:
        return self._keep is not None and self._sound[request.group_id] >= self._keep

    def _cut(self, group_id: str) -> None:
        for run in self._runs():
            if run.request.group_id == group_id:
                self._follow(run, run.episode.fail(*_SURPLUS))

    async def _call(self, request: EpisodeRequest, call: CallTool) -> SearchReply:
        tools = request.tools or self._tools
        if tools is None:
            raise ToolError("the episode calls a tool, but no search server was given")
        return await call_tool(tools, call.action, call.top_k, request.question, request.image)

    def _collect(self) -> None:
        """Continues the runs whose tool calls are finished."""
        for run in [run for run in self._calling if run.task is not None and run.task.done()]:
            task, call = run.task, run.call
            if task is None or call is None:
                continue  # Ended as surplus by an earlier run of this loop.
            run.task, run.call = None, None
            self._calling.discard(run)
            error = task.exception()
            if error is None:
                self._follow(run, run.episode.observed(call.action, task.result()))
            elif isinstance(error, ToolError):
                self._follow(run, run.episode.fail(Status.TOOL_FAILED, str(error)))
            else:
                raise error

    async def _wait(self) -> None:
        """Waits until a round ends or, while an engine has nothing to do, until there may be work for it."""
        rounds = self._rounds.futures
        if self._rounds.all_busy:
            await asyncio.wait(rounds, return_when=asyncio.FIRST_COMPLETED)
            return
        if not rounds and not self._calling:
            return
        tasks = [run.task for run in self._calling if run.task is not None]
        timeout = None
        if self._deadline_s is not None:
            oldest = min((run.started or 0.0 for run in self._runs()), default=time.monotonic())
            timeout = max(0.0, oldest + self._deadline_s - time.monotonic())
        if self._waiting:
            timeout = min(timeout or _PATIENCE_S, _PATIENCE_S)
        self._news.clear()
        news = asyncio.ensure_future(self._news.wait())
        await asyncio.wait([*rounds, *tasks, news], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()

    def _follow_rounds(self) -> None:
        """Continues the runs whose turn has ended in a round."""
        for played in self._rounds.ended():
            runs = {id(run.sequence): run for run in self._resident}
            for run in [runs[id(sequence)] for sequence in played.sequences if id(sequence) in runs]:
                if run.watch is not None and run.sequence.new_ids:
                    run.watch(run)
            for run in [runs[id(sequence)] for sequence in played.finished if id(sequence) in runs]:
                if not run.episode.done:
                    self._follow(run, run.episode.generated(self._engine.take(run.sequence)))

    def _expire(self) -> None:
        for run in [run for run in self._runs() if run.cancelled]:
            self._follow(run, run.episode.fail(Status.CANCELLED, "the client no longer waits for it"))
        if self._deadline_s is None:
            return
        oldest = time.monotonic() - self._deadline_s
        for run in self._runs():
            if run.started is not None and run.started < oldest:
                self._follow(run, run.episode.fail(Status.DEADLINE, f"not finished within {self._deadline_s:g} s"))

    # Device side --------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Gives slots to waiting episodes; parked ones lose theirs if nothing else can run on their engine."""
        if self._waiting and not self._engine.free_slots:
            patient = time.monotonic() - _PATIENCE_S
            working = {id(run.sequence.engine) for run in self._ready()}
            for run in [
                run
                for run in self._resident
                if run.parked
                and run.called < patient
                and id(run.sequence.engine) not in working
                and not self._rounds.plays(run.sequence.engine)
            ][: len(self._waiting)]:
                # Their tokens are fed again when they come back.
                self._engine.release(run.sequence)
                self._resident.remove(run)
        while self._waiting and self._engine.free_slots:
            run = self._waiting.popleft()
            self._engine.acquire(run.sequence)
            self._resident.append(run)

    def _ready(self) -> list[LiveEpisode]:
        return [run for run in self._resident if not run.parked]
