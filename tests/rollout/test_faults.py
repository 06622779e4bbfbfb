"""Rollouts with a real HTTP server that dies, is slow, fails or sends too much: no hang, no loss, no duplicates."""

import asyncio
import contextlib
import dataclasses
import socket

import pytest
from aiohttp import web

from benchmarks.stand_ins import scripted
from benchmarks.stand_ins.scripted import CONFIG, FakeTools, Play
from mmsearch_jax.core import search_api
from mmsearch_jax.core.protocol import Answer, TextSearch, render_turn
from mmsearch_jax.core.search_api import SearchReply, SearchResult
from mmsearch_jax.core.trajectory import Status
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes
from mmsearch_jax.rollout.tool_client import ToolClient


def searching(number: int, query: str) -> Play:
    return Play(number, [render_turn("Hm.", TextSearch(query)), render_turn("So.", Answer("Lima"))])


PLAIN, SLOW, HUGE, FLAKY = (
    searching(number, query) for number, query in enumerate(["capital of Peru", "slow", "huge", "flaky"], 1)
)
PLAYS = [PLAIN, SLOW, HUGE, FLAKY]
HUGE_BYTES = 5_000_000


class Server:
    """A search server on a free port that tests can `stop` and `start`."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.asked, self.failed, self._runner = f"http://127.0.0.1:{self.port}", 0, 0, None

    async def start(self):
        app = web.Application()
        app.router.add_post(search_api.ROUTE_TEXT_SEARCH, self._search)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self):
        await self._runner.cleanup()

    async def _search(self, request):
        self.asked += 1
        query = search_api.TextSearchRequest.from_json(await request.json()).query
        if query == "slow":
            await asyncio.sleep(1.5)
        if query == "flaky" and self.asked % 10 < 3:
            self.failed += 1
            return web.Response(status=500)
        snippet = "word " * (HUGE_BYTES // 5) if query == "huge" else f"{query} is Lima."
        return web.json_response(SearchReply((SearchResult("Peru", snippet),), "text_search").to_json())


@contextlib.asynccontextmanager
async def serving(**options):
    server = Server()
    await server.start()
    tools = ToolClient(server.url, **options)
    try:
        yield server, tools
    finally:
        await tools.close()
        await server.stop()


@pytest.fixture(scope="module")
def engine():
    warm = scripted.engine(*PLAYS)
    warm.warm_up()
    return warm


def requests(play: Play, count: int) -> list[EpisodeRequest]:
    return [EpisodeRequest(f"q{i}", f"q{i}", play.question, scripted.picture(), seed=i) for i in range(count)]


def check_whole(engine, asked, trajectories):
    """Checks that every request has its own trajectory, in order, and that the engine is free."""
    assert [t.row_id for t in trajectories] == [r.row_id for r in asked]
    assert len({id(t) for t in trajectories}) == len(asked) and engine.free_slots == engine.config.num_slots


def test_a_server_that_dies_and_comes_back_costs_no_trajectory(engine):
    async def run():
        async with serving(deadline_s=20.0, max_retries=50) as (server, tools):

            async def outage():
                while server.asked < 5:
                    await asyncio.sleep(0.002)
                await server.stop()
                await asyncio.sleep(0.7)
                await server.start()

            broken, asked = asyncio.create_task(outage()), requests(PLAIN, 24)
            trajectories = await run_episodes(engine, asked, CONFIG, tools)
            await broken
            return asked, trajectories

    asked, trajectories = asyncio.run(run())
    check_whole(engine, asked, trajectories)
    assert all(t.token_ids == scripted.rendered(PLAIN).token_ids for t in trajectories)


def test_a_server_that_stays_away_is_told_from_a_wrong_answer(engine):
    async def run():
        async with serving(deadline_s=5.0, max_retries=1) as (server, tools):
            await server.stop()
            trajectories = await run_episodes(engine, requests(PLAIN, 6), CONFIG, tools)
            await server.start()
            return trajectories

    trajectories = asyncio.run(run())
    assert {t.status for t in trajectories} == {Status.TOOL_FAILED} and "no search server" in (
        trajectories[0].error or ""
    )


def test_a_reply_after_its_deadline_is_not_waited_for_and_disturbs_nobody(engine):
    async def run():
        async with serving(deadline_s=0.4) as (_, tools):
            asked = [*requests(SLOW, 3), *requests(PLAIN, 9)]
            trajectories = await run_episodes(engine, asked, CONFIG, tools)
            # The late replies arrive now, while others search.
            again = await run_episodes(engine, requests(PLAIN, 9), CONFIG, tools)
            return asked, trajectories, again

    asked, trajectories, again = asyncio.run(run())
    check_whole(engine, asked, trajectories)
    assert [t.status for t in trajectories] == [Status.TOOL_FAILED] * 3 + [Status.ANSWERED] * 9
    assert all(t.token_ids == scripted.rendered(PLAIN).token_ids for t in again)


def test_three_failures_in_ten_end_just_those_episodes(engine):
    async def run():
        async with serving(max_retries=0) as (server, tools):
            asked = requests(FLAKY, 60)
            return asked, await run_episodes(engine, asked, CONFIG, tools), server.failed

    asked, trajectories, failed = asyncio.run(run())
    check_whole(engine, asked, trajectories)
    statuses = [t.status for t in trajectories]
    assert statuses.count(Status.TOOL_FAILED) == failed == 18 and statuses.count(Status.ANSWERED) == 42
    assert all("HTTP 500" in (t.error or "") for t in trajectories if t.status == "tool_failed")


def test_a_reply_of_five_megabytes_is_cut_to_the_observation_s_budget(engine, monkeypatch):
    config = dataclasses.replace(CONFIG, observation_max_tokens=60)
    encode, encoded = type(engine.renderer).encode, []
    monkeypatch.setattr(
        type(engine.renderer), "encode", lambda self, text: encoded.append(len(text)) or encode(self, text)
    )

    async def run():
        async with serving() as (_, tools):
            # The script was written for another observation, so the policy samples what follows.
            return await run_episodes(engine, requests(HUGE, 2), config, tools)

    trajectories = asyncio.run(run())
    assert max(encoded) < 100_000
    for trajectory in trajectories:
        observation = trajectory.turns[0].observation or ""
        assert 0 < len(scripted.RENDERER.encode(observation)) <= 60 and observation.endswith("</information>")


@pytest.mark.parametrize("moment", range(6))
def test_cancelled_at_any_moment_it_leaves_nothing_behind(engine, moment):
    """Cancels before the start, and after each of the first calls of device and tools."""
    tools, events, reached = FakeTools(delay_s=0.05), 0, asyncio.Event()

    def counted(function):
        def call(*args):
            nonlocal events
            events += 1
            if events == moment:
                loop.call_soon_threadsafe(reached.set)
            return function(*args)

        return call

    async def run():
        nonlocal loop
        loop = asyncio.get_running_loop()
        # Like a caller that continues in the same loop.
        task = asyncio.create_task(run_episodes(engine, requests(PLAIN, 9), CONFIG, tools))  # type: ignore[arg-type]
        if moment:
            await asyncio.wait([asyncio.create_task(reached.wait()), task], return_when=asyncio.FIRST_COMPLETED)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.free_slots == engine.config.num_slots
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()} and tools.in_flight == 0
        return await run_episodes(engine, requests(PLAIN, 3), CONFIG, tools)  # type: ignore[arg-type]

    loop, extend, decode = None, engine.extend, engine.decode
    engine.extend, engine.decode = counted(extend), counted(decode)
    try:
        trajectories = asyncio.run(run())
    finally:
        engine.extend, engine.decode = extend, decode
    assert all(t.token_ids == scripted.rendered(PLAIN).token_ids for t in trajectories)
