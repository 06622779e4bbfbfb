"""Whole episodes with a scripted policy: ids equal the SFT rendering, nothing blocks, nothing is lost."""

import asyncio
import dataclasses

import pytest

from benchmarks.stand_ins import scripted
from benchmarks.stand_ins.scripted import CONFIG, RENDERER, FakeTools, Play
from mmsearch_jax.core.protocol import Answer, TextSearch, render_turn
from mmsearch_jax.core.trajectory import Status
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes, run_episodes_sync

ANSWER = Play(1, [render_turn("So.", Answer("Lima"))])
SEARCH = Play(2, [render_turn("Hm.", TextSearch("capital of Peru")), render_turn("So.", Answer("Lima"))])
TWICE = Play(
    3,
    [
        render_turn("Hm.", TextSearch("Peru")),
        render_turn("Hm.", TextSearch("capital")),
        render_turn("So.", Answer("Lima")),
    ],
)
BROKEN = Play(4, [render_turn("Hm.", TextSearch("broken"))])
PLAYS = [ANSWER, SEARCH, TWICE]


def request(play: Play, number: int = 0, shade: int = 0) -> EpisodeRequest:
    return EpisodeRequest(f"q{play.number}", f"q{play.number}", play.question, scripted.picture(shade), seed=number)


def test_ids_of_a_rollout_equal_the_sft_rendering_of_the_same_conversation():
    engine = scripted.engine(*PLAYS)
    requests = [request(play, number) for number in range(3) for play in PLAYS]
    trajectories = run_episodes_sync(engine, requests, CONFIG, FakeTools())  # type: ignore[arg-type]
    for number, trajectory in enumerate(trajectories):
        expected = scripted.rendered(PLAYS[number % 3])
        assert trajectory.status == Status.ANSWERED and trajectory.answer == "Lima"
        assert trajectory.token_ids == expected.token_ids
        assert trajectory.provenance == expected.provenance
        assert trajectory.row_id == requests[number].row_id and trajectory.seed == requests[number].seed
    assert engine.free_slots == engine.config.num_slots


def test_the_device_was_fed_exactly_the_tokens_of_the_trajectory():
    engine = scripted.engine(TWICE)
    (trajectory,) = run_episodes_sync(engine, [request(TWICE)], CONFIG, FakeTools())  # type: ignore[arg-type]
    fed = engine._cache.tokens[0, :, 0, 0].astype(int).tolist()
    # The tokens that end the last turn are never fed.
    assert fed[: len(trajectory.token_ids) - 1] == trajectory.token_ids[:-1]


def test_a_group_is_prefilled_once_and_an_image_encoded_once():
    engine = scripted.engine(ANSWER)
    run_episodes_sync(engine, [request(ANSWER, i) for i in range(4)], CONFIG, None)
    prompt = scripted.rendered(ANSWER).provenance.count(0)
    assert engine.stats.extended_tokens == prompt and engine.stats.shared_tokens == 3 * prompt
    assert engine.stats.encoded_images == 1


def test_other_slots_decode_while_tools_are_slow_and_calls_overlap():
    engine = scripted.engine(*PLAYS)
    run_episodes_sync(engine, [request(play) for play in PLAYS], CONFIG, FakeTools())  # type: ignore[arg-type]
    ended: list[str] = []
    tools = FakeTools(delay_s=0.4)
    requests = [request(SEARCH), request(SEARCH, 1), request(SEARCH, 2), request(ANSWER)]
    run_episodes_sync(engine, requests, CONFIG, tools, lambda t: ended.append(t.row_id))  # type: ignore[arg-type]
    assert ended[0] == "q1"
    assert tools.peak == 3


class CrowdedTools(FakeTools):
    """Answers nobody until `count` calls wait at the same time, however long that takes on this machine."""

    def __init__(self, count: int):
        super().__init__()
        self._count, self._all_wait = count, asyncio.Event()

    async def text_search(self, query: str, top_k: int = 5, question: str = ""):
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        if self.in_flight == self._count:
            self._all_wait.set()
        await asyncio.wait_for(self._all_wait.wait(), 300)
        self.in_flight -= 1
        return scripted.hit(query)


def test_parked_episodes_give_their_slots_to_waiting_ones():
    engine = scripted.engine(*PLAYS)
    tools = CrowdedTools(engine.config.num_slots + 1)
    requests = [request(SEARCH, i) for i in range(12)]
    trajectories = run_episodes_sync(engine, requests, CONFIG, tools)  # type: ignore[arg-type]
    assert tools.peak > engine.config.num_slots
    assert all(t.token_ids == scripted.rendered(SEARCH).token_ids for t in trajectories)


def test_with_more_slots_than_decode_those_that_wait_for_a_tool_keep_their_caches():
    wide = dataclasses.replace(scripted.ENGINE_CONFIG, num_slots=12, decode_width=2)
    engine = scripted.engine(*PLAYS, config=wide)
    decoding, decode = [], engine.decode

    def counted(sequences):
        decoding.append(len(sequences))
        return decode(sequences)

    engine.decode = counted
    tools = CrowdedTools(12)
    trajectories = run_episodes_sync(engine, [request(SEARCH, i) for i in range(12)], CONFIG, tools)  # type: ignore[arg-type]
    assert max(decoding) == 2 and tools.peak == 12
    assert all(t.token_ids == scripted.rendered(SEARCH).token_ids for t in trajectories)
    # Nothing is fed twice: sampled tokens are already in the cache, except each turn's last token.
    fed = len(trajectories[0].token_ids) - trajectories[0].num_sampled
    assert engine.stats.extended_tokens + engine.stats.shared_tokens <= 12 * (fed + 2)


def test_a_long_prompt_is_fed_in_pieces_between_which_others_decode():
    sizes = dataclasses.replace(scripted.ENGINE_CONFIG, extend_rows=(2,), extend_buckets=(16,), extend_calls=1)
    long = Play(2, [render_turn("So.", Answer("Lima"))])
    engine = scripted.engine(ANSWER, long, config=sizes)
    padded = [dataclasses.replace(request(long, i), question=f"{'well, ' * 40}{long.question}") for i in range(3)]
    calls, extend, decode = [], engine.extend, engine.decode
    engine.extend = lambda *args: (calls.append("extend"), extend(*args))[1]
    engine.decode = lambda live: (calls.append(len(live)), decode(live))[1]
    done = run_episodes_sync(engine, [request(ANSWER), *padded], CONFIG, None, lambda t: calls.append(t.row_id))
    # The short one decodes, one call at a time, while the long prompt is fed; the group's first episode feeds it once.
    ended = calls.index("q1")
    assert calls[:ended].count("extend") >= 3 and set(calls[:ended]) == {"extend", 1}
    assert engine.stats.shared_tokens == 2 * done[1].provenance.count(0)
    assert engine.stats.extended_tokens == done[0].provenance.count(0) + done[1].provenance.count(0)
    assert [t.provenance.count(0) for t in done[1:]] == [done[1].provenance.count(0)] * 3


def test_the_surplus_of_a_group_is_cut_as_soon_as_enough_have_ended():
    slow = Play(5, [render_turn("Hm.", TextSearch("slow")), render_turn("So.", Answer("Lima"))])
    engine = scripted.engine(*PLAYS, slow)

    class OneIsSlow(FakeTools):
        async def text_search(self, query, top_k=5, question=""):
            await asyncio.sleep(600 if query == "slow" else 0)
            return await super().text_search(query, top_k)

    group = [
        dataclasses.replace(request(play, i), group_id="g")
        for i, play in enumerate([slow, SEARCH, ANSWER, SEARCH, SEARCH])
    ]
    other = [request(TWICE, i) for i in range(2)]
    done = asyncio.run(run_episodes(engine, [*group, *other], CONFIG, OneIsSlow(), keep_per_group=3))  # type: ignore[arg-type]
    assert engine.free_slots == engine.config.num_slots
    statuses = [t.status for t in done]
    assert statuses[0] == Status.SURPLUS and done[0].infrastructure_failure
    assert statuses[:5].count(Status.ANSWERED) == 3 and statuses[:5].count(Status.SURPLUS) == 2
    assert statuses[5:] == [Status.ANSWERED] * 2


def test_a_broken_tool_is_told_apart_and_harms_no_other_episode():
    engine = scripted.engine(*PLAYS, BROKEN)
    trajectories = run_episodes_sync(engine, [request(BROKEN), request(SEARCH)], CONFIG, FakeTools())  # type: ignore[arg-type]
    assert [t.status for t in trajectories] == [Status.TOOL_FAILED, Status.ANSWERED]
    assert trajectories[0].infrastructure_failure and trajectories[0].error == "HTTP 500"


def test_without_a_search_server_a_call_fails_as_a_tool():
    (trajectory,) = run_episodes_sync(scripted.engine(SEARCH), [request(SEARCH)], CONFIG, None)
    assert trajectory.status == Status.TOOL_FAILED and "no search server" in (trajectory.error or "")


def test_an_episode_past_its_deadline_ends_as_such_and_frees_its_slot():
    engine = scripted.engine(*PLAYS)
    # Compiles first, because compilation can take longer than the deadline on a busy machine.
    run_episodes_sync(engine, [request(ANSWER)], CONFIG, None)
    tools = FakeTools(delay_s=30.0)
    requests = [request(SEARCH), request(ANSWER)]
    trajectories = run_episodes_sync(engine, requests, CONFIG, tools, episode_deadline_s=4.0)  # type: ignore[arg-type]
    assert [t.status for t in trajectories] == [Status.DEADLINE, Status.ANSWERED]
    assert engine.free_slots == 4


def test_direct_answers_need_no_tools():
    config = dataclasses.replace(CONFIG, mode="direct")
    play = Play(1, ["Lima"])
    engine = scripted.engine(play, episode=config)
    (trajectory,) = run_episodes_sync(engine, [request(play)], config, None)
    assert (trajectory.status, trajectory.answer) == (Status.ANSWERED, "Lima")
    assert trajectory.token_ids == scripted.rendered(play, config).token_ids


def test_nothing_is_compiled_once_every_bucket_was_met():
    engine = scripted.engine(*PLAYS)
    requests = [request(play, number, shade=number) for number in range(3) for play in PLAYS]
    run_episodes_sync(engine, requests, CONFIG, FakeTools())  # type: ignore[arg-type]
    before = engine.num_programs()
    varied = [
        dataclasses.replace(r, seed=9, sampling=dataclasses.replace(r.sampling, temperature=0.5, top_p=0.9, top_k=7))
        for r in reversed(requests)
    ]
    run_episodes_sync(engine, varied, CONFIG, FakeTools())  # type: ignore[arg-type]
    assert engine.num_programs() == before


def test_trajectories_must_fit_the_engine():
    config = dataclasses.replace(CONFIG, max_trajectory_tokens=scripted.MAX_LENGTH + 1)
    with pytest.raises(ValueError, match="exceeds the engine's max_length"):
        asyncio.run(run_episodes(scripted.engine(ANSWER), [], config, None))


def test_an_image_that_cannot_be_shown_ends_its_episode_alone_and_a_question_without_one_is_played():
    engine, ended = scripted.engine(ANSWER), []
    odd = dataclasses.replace(request(ANSWER), row_id="odd", image=b"no image")
    bare = dataclasses.replace(request(ANSWER), row_id="bare", group_id="bare", image=b"")
    played = run_episodes_sync(engine, [odd, bare, request(ANSWER)], CONFIG, FakeTools(), ended.append)  # type: ignore[arg-type]
    assert [t.status == Status.UNUSABLE for t in played] == [True, False, False] and len(ended) == 3
    assert played[0].infrastructure_failure and "not an image" in (played[0].error or "")
    assert RENDERER.image_pad not in played[1].token_ids and played[1].image_grids == []
    assert played[1].num_sampled > 0 and played[2].status == Status.ANSWERED
