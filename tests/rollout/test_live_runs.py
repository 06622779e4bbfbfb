"""Episodes that start and end while others are in progress, as a server needs it."""

import asyncio
import contextlib
import dataclasses
import threading

import pytest

from benchmarks.stand_ins import scripted
from benchmarks.stand_ins.scripted import CONFIG, RENDERER, FakeTools, Play
from mmsearch_jax.core.protocol import Answer, TextSearch, render_turn
from mmsearch_jax.core.trajectory import SAMPLED, Status, Trajectory
from mmsearch_jax.rollout.chat import Chat
from mmsearch_jax.rollout.episode import Episode
from mmsearch_jax.rollout.live_episode import EpisodeRequest, LiveEpisode
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import Scheduler, run_episodes_sync
from mmsearch_jax.rollout.sequence import LiveSequence

ANSWER = Play(1, [render_turn("So.", Answer("Lima"))])
SEARCH = Play(2, [render_turn("Hm.", TextSearch("capital of Peru")), render_turn("So.", Answer("Lima"))])


def run_of(engine, play: Play, watch=None) -> LiveEpisode:
    image = engine.prepare_image(scripted.picture())
    trajectory = Trajectory("t", "r", "g")
    episode = Episode(trajectory, play.question, [image.grid], [image.num_tokens], CONFIG, RENDERER)
    request = EpisodeRequest("r", "g", play.question, scripted.picture())
    return LiveEpisode(request, episode, LiveSequence(trajectory.token_ids, [image]), watch=watch)


@contextlib.asynccontextmanager
async def live(scheduler: Scheduler):
    work = asyncio.create_task(scheduler.serve())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await scheduler.close()


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def test_tokens_turns_and_observations_are_told_as_they_come():
    engine, seen = scripted.engine(SEARCH), []

    def watch(run: LiveEpisode) -> None:
        trajectory = run.episode.trajectory
        observed = sum(turn.observation is not None for turn in trajectory.turns)
        seen.append((len(trajectory.turns), observed, len(run.sequence.new_ids), run.episode.done))

    request = EpisodeRequest("q", "q", SEARCH.question, scripted.picture(), sampling=SamplingParams(temperature=0.0))
    run_episodes_sync(engine, [request], CONFIG, FakeTools(), watch=watch)  # type: ignore[arg-type]
    assert seen == sorted(seen, key=lambda told: told[:2]) and seen[-1][3] and not any(told[3] for told in seen[:-1])
    first = [tokens for turns, _, tokens, _ in seen if turns == 0]
    # A turn grows by the tokens of one decode call at a time.
    assert len(first) > 2 and first == sorted(first) and max(first) == len(RENDERER.encode(SEARCH.texts[0]))
    assert (1, 0) in {told[:2] for told in seen} and (1, 1) in {told[:2] for told in seen}


def test_a_run_that_is_added_later_needs_not_wait_for_a_search():
    async def main() -> None:
        engine, tools = scripted.engine(ANSWER, SEARCH), FakeTools(delay_s=3600)
        scheduler = Scheduler(engine, CONFIG, tools)  # type: ignore[arg-type]
        async with live(scheduler):
            slow, quick = run_of(engine, SEARCH), run_of(engine, ANSWER)
            scheduler.add(slow)
            await until(lambda: tools.in_flight == 1)
            scheduler.add(quick)
            await until(lambda: quick.episode.done)
            assert quick.episode.trajectory.answer == "Lima" and not slow.episode.done

    asyncio.run(main())


def test_a_cancelled_run_frees_its_slot_whether_it_searches_or_decodes(monkeypatch):
    async def main() -> None:
        engine, tools = scripted.engine(ANSWER, SEARCH), FakeTools(delay_s=3600)
        scheduler = Scheduler(engine, CONFIG, tools)  # type: ignore[arg-type]
        entered, go, decode = threading.Event(), threading.Event(), engine.decode
        async with live(scheduler):
            searching = run_of(engine, SEARCH)
            scheduler.add(searching)
            await until(lambda: tools.in_flight == 1)
            scheduler.cancel(searching)
            await until(lambda: searching.episode.done)
            assert engine.free_slots == engine.config.num_slots and not scheduler.busy

            def gated(sequences):
                entered.set()
                assert go.wait(60)
                return decode(sequences)

            monkeypatch.setattr(engine, "decode", gated)
            decoding = run_of(engine, ANSWER)
            scheduler.add(decoding)
            await until(entered.is_set)
            # The device is using the slot, so it is freed after the call.
            scheduler.cancel(decoding)
            assert engine.free_slots == engine.config.num_slots - 1
            go.set()
            await until(lambda: decoding.episode.done)
            assert engine.free_slots == engine.config.num_slots
            assert {searching.episode.trajectory.status, decoding.episode.trajectory.status} == {Status.CANCELLED}

    asyncio.run(main())


def test_cancelling_what_has_ended_changes_nothing():
    async def main() -> None:
        engine = scripted.engine(ANSWER)
        scheduler = Scheduler(engine, CONFIG, None)
        async with live(scheduler):
            run = run_of(engine, ANSWER)
            scheduler.add(run)
            await until(lambda: run.episode.done)
            scheduler.cancel(run)
            await asyncio.sleep(0.05)
            assert run.episode.trajectory.status == Status.ANSWERED

    asyncio.run(main())


@pytest.mark.parametrize(("max_tokens", "status"), [(100, Status.ANSWERED), (2, Status.OVERLONG)])
def test_a_chat_is_one_message_after_its_prompt(max_tokens, status):
    play, rules = Play(1, ["It is Lima."]), dataclasses.replace(CONFIG, mode="direct")
    engine = scripted.engine(play, episode=rules)
    rendered = scripted.rendered(play, rules)
    length = rendered.provenance.count(SAMPLED)
    prompt = rendered.token_ids[:-length]

    async def main() -> Trajectory:
        scheduler, image = Scheduler(engine, CONFIG, None), engine.prepare_image(scripted.picture())
        trajectory = Trajectory("t", "", "")
        sequence = LiveSequence(trajectory.token_ids, [image], plain=True)
        async with live(scheduler):
            run = LiveEpisode(EpisodeRequest("", "", "", b""), Chat(trajectory, prompt, max_tokens), sequence)
            scheduler.add(run)
            await until(lambda: run.episode.done)
        return trajectory

    trajectory = asyncio.run(main())
    sampled = min(length, max_tokens)
    assert trajectory.status == status and trajectory.token_ids == rendered.token_ids[: len(prompt) + sampled]
    assert trajectory.provenance == rendered.provenance[: len(prompt) + sampled]


def test_an_image_that_many_threads_prepare_at_once_is_one_image():
    engine, made = scripted.engine(ANSWER), []
    threads = [
        threading.Thread(target=lambda: made.append(engine.prepare_image(scripted.picture(7)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len({id(image) for image in made}) == 1
