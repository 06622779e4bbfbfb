"""The LLM judge with a real HTTP endpoint that answers correctly, badly, late or not at all."""

import asyncio
import contextlib
import functools

import pytest
from aiohttp import web

from mmsearch_jax.core.errors import ConfigError, JudgeFailed
from mmsearch_jax.core.trajectory import Status
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.rewards.judge import Judge
from mmsearch_jax.settings.learning import JudgeConfig, RewardConfig
from tests.rewards.test_compose import ROW, answered


def in_a_loop(test):
    """Runs an async test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


class Endpoint:
    """Sends `replies` in order and repeats the last one: a string is the model's text, an int an HTTP error."""

    def __init__(self, *replies, delay=0.0):
        self.replies, self.delay = list(replies), delay
        self.bodies, self.headers, self.at_once, self.most_at_once = [], [], 0, 0

    async def handle(self, request):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, int):
            return web.Response(status=reply, text="busy")
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": reply}}]})


@contextlib.asynccontextmanager
async def served(endpoint):
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def verdict(endpoint, **settings):
    async with served(endpoint) as url:
        judge = Judge(JudgeConfig(url, "m", **settings))
        try:
            return await judge.correct("Capital of Peru?", ("Lima",), "It is Lima.")
        finally:
            await judge.close()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("CORRECT", True),
        ("wrong.", False),
        ("INCORRECT", False),
        ("It might be WRONG to say so, but in the end: CORRECT", True),
    ],
)
@in_a_loop
async def test_the_last_verdict_counts(said, expected, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "secret-1")
    endpoint = Endpoint(said)
    assert await verdict(endpoint) is expected
    body = endpoint.bodies[0]
    assert (body["model"], body["temperature"]) == ("m", 0)
    assert "Capital of Peru?" in body["messages"][0]["content"] and '"It is Lima."' in body["messages"][0]["content"]
    assert endpoint.headers[0]["Authorization"] == "Bearer secret-1"


@pytest.mark.parametrize(
    "thoughts", ["<think>Is it CORRECT? Perhaps", "<think>It is CORRECT.</think>", "CORRECT\n</think>\n"]
)
@in_a_loop
async def test_what_a_judge_thinks_is_no_verdict(thoughts):
    endpoint = Endpoint(thoughts, f"{thoughts}</think>\n\nWRONG")
    assert await verdict(endpoint) is False
    assert len(endpoint.bodies) == 2


@in_a_loop
async def test_what_may_pass_is_tried_again():
    endpoint = Endpoint(503, 429, "I cannot say.", "CORRECT")
    assert await verdict(endpoint) is True
    assert len(endpoint.bodies) == 4


@in_a_loop
async def test_a_late_judge_is_a_failure_within_the_deadline():
    async with served(Endpoint("CORRECT", delay=0.5)) as url:
        judge = Judge(JudgeConfig(url, "m", deadline_s=0.3))
        with pytest.raises(JudgeFailed, match=r"gave no verdict in 0.3 s"):
            await judge.correct("q", ("a",), "b")
        await judge.close()


@in_a_loop
async def test_a_refused_key_is_said_at_once_and_not_shown(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "secret-1")
    endpoint = Endpoint(401)
    with pytest.raises(JudgeFailed, match=r"HTTP 401: busy; is the key in JUDGE_API_KEY\?") as caught:
        await verdict(endpoint)
    assert len(endpoint.bodies) == 1 and "secret-1" not in str(caught.value)


@in_a_loop
async def test_no_server_is_a_failure_that_names_the_address():
    judge = Judge(JudgeConfig("http://127.0.0.1:9/v1", "m", deadline_s=0.3))
    with pytest.raises(JudgeFailed, match="127.0.0.1:9"):
        await judge.correct("q", ("a",), "b")
    await judge.close()


@in_a_loop
async def test_equal_questions_are_asked_once_and_no_more_than_allowed_at_a_time():
    endpoint = Endpoint("CORRECT", delay=0.05)
    async with served(endpoint) as url:
        judge = Judge(JudgeConfig(url, "m", max_concurrency=2))
        answers = [str(i % 6) for i in range(24)]
        assert all(await asyncio.gather(*(judge.correct("q", ("a",), answer) for answer in answers)))
        await judge.close()
    assert len(endpoint.bodies) == 6 and endpoint.most_at_once == 2


@pytest.mark.parametrize(("match", "asked"), [("judge", 2), ("exact_or_judge", 1)])
@in_a_loop
async def test_the_judge_decides_and_its_agreement_is_told(match, asked):
    endpoint = Endpoint("CORRECT")
    async with served(endpoint) as url:
        scorer = Scorer(RewardConfig(match=match), JudgeConfig(url, "m"))
        made = [answered("Paris"), answered("the city on the Seine")]
        await scorer.score(made, {ROW.id: ROW})
        await scorer.close()
    assert [t.reward_parts["match"] for t in made] == [1, 1]
    assert len(endpoint.bodies) == asked
    assert made[1].reward_parts["judge_agrees_with_exact"] == 0


@in_a_loop
async def test_a_judge_that_fails_is_a_status_and_never_a_zero():
    endpoint = Endpoint(400)
    async with served(endpoint) as url:
        scorer = Scorer(RewardConfig(match="judge"), JudgeConfig(url, "m"))
        made = [answered("Paris")]
        await scorer.score(made, {ROW.id: ROW})
        await scorer.close()
    assert made[0].status == Status.JUDGE_FAILED and made[0].reward is None and made[0].infrastructure_failure
    assert "HTTP 400" in made[0].error


def test_a_judge_that_is_asked_for_must_be_named():
    with pytest.raises(ConfigError, match=r"reward.match is 'judge', but judge.url is empty"):
        Scorer(RewardConfig(match="judge"), JudgeConfig())
    with pytest.raises(ConfigError, match=r"model is empty"):
        JudgeConfig("http://x/v1")
    with pytest.raises(ConfigError, match=r"give an address such as"):
        JudgeConfig("localhost:8000", "m")
