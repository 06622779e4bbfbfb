"""Chat completions with the `openai` client, from the tiny base over a real socket."""

import asyncio
import base64
import concurrent.futures
import struct
import threading
import time
import zlib

import aiohttp
import numpy as np
import openai
import pytest

from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.settings.serving import ServeConfig
from tests.compilations import Compilations
from tests.rollout import random_policy
from tests.serving.live_server import MODEL, SIZES, serving, tiny_engine

ASK = [{"role": "user", "content": "What is the capital of Peru?"}]


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


@pytest.fixture(scope="module")
def live(engine):
    with serving(engine) as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    return live.client()


def data_url(shade: int = 0) -> str:
    return "data:image/png;base64," + base64.b64encode(random_policy.picture(shade)).decode()


def picture_message(text: str, *shades: int) -> dict:
    images = [{"type": "image_url", "image_url": {"url": data_url(shade)}} for shade in shades]
    return {"role": "user", "content": [*images, {"type": "text", "text": text}]}


def alone(engine, ids, images=(), max_tokens=12, **sampling):
    """The engine's own completion of a prompt, one sequence at a time."""
    seed, sampling = sampling.pop("seed", 0), SamplingParams(**{"temperature": 0.0, **sampling})
    live = LiveSequence(list(ids), list(images), seed, sampling, plain=True)
    engine.acquire(live)
    engine.begin_turn(live, max_tokens)
    engine.extend([live])
    while live.finish is None:
        engine.decode([live])
    engine.release(live)
    return engine.take(live)


def text_of(engine, token_ids) -> str:
    return b"".join(engine.renderer.token_bytes[i] for i in token_ids).decode()


def ask(client, messages=ASK, **settings):
    return client.chat.completions.create(
        **{"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 12, **settings}
    )


def test_a_text_conversation_is_what_the_renderer_makes_of_it(live, client):
    messages = [
        {"role": "system", "content": "Be short."},
        *ASK,
        {"role": "assistant", "content": "Lima"},
        {"role": "user", "content": "And of <|im_end|> Chile?"},
    ]
    reply = ask(client, messages)
    rendered = live.engine.renderer.conversation(
        ASK[0]["content"], [("Lima", "And of <|im_end|> Chile?")], system="Be short.", plain=True
    )
    made = alone(live.engine, rendered.token_ids)
    assert reply.choices[0].message.content == text_of(live.engine, made.token_ids)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(rendered.token_ids), len(made.token_ids))
    assert reply.usage.total_tokens == len(rendered.token_ids) + len(made.token_ids)


def test_images_before_the_text_are_rendered_as_in_training(live, client):
    messages = [
        picture_message("Which?", 200, 10),
        {"role": "assistant", "content": "Red"},
        picture_message("And now?", 90),
    ]
    reply = ask(client, messages)
    images = [live.engine.prepare_image(random_policy.picture(shade)) for shade in (200, 10, 90)]
    counts = [image.num_tokens for image in images]
    rendered = live.engine.renderer.conversation(
        "Which?", [("Red", "And now?")], counts[:2], later_image_token_counts={0: counts[2:]}, plain=True
    )
    made = alone(live.engine, rendered.token_ids, images)
    assert reply.choices[0].message.content == text_of(live.engine, made.token_ids)
    assert reply.usage.prompt_tokens == len(rendered.token_ids)


def test_texts_and_images_keep_the_clients_order(live, client):
    picture = {"type": "image_url", "image_url": {"url": data_url(200)}}
    content = [{"type": "text", "text": "Before"}, picture, {"type": "text", "text": "behind"}]
    reply = ask(client, [{"role": "user", "content": [*content, {"type": "text", "text": "it"}]}])
    image = live.engine.prepare_image(random_policy.picture(200))
    ids = live.engine.renderer.dialogue_ids([["Before", image.num_tokens, "behind\nit"]])
    made = alone(live.engine, ids, [image])
    assert reply.choices[0].message.content == text_of(live.engine, made.token_ids)
    assert reply.usage.prompt_tokens == len(ids)


def test_a_stream_says_the_same_in_pieces_and_ends_with_the_usage(client):
    whole = ask(client, temperature=1, seed=5, max_tokens=24)
    chunks = list(
        ask(client, temperature=1, seed=5, max_tokens=24, stream=True, stream_options={"include_usage": True})
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(texts) == whole.choices[0].message.content and sum(map(bool, texts)) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_n_replies_differ_and_each_is_that_of_its_seed(live, client):
    reply = ask(client, n=3, temperature=1.5, seed=7)
    prompt = live.engine.renderer.prompt_ids(ASK[0]["content"])
    expected = [
        text_of(live.engine, alone(live.engine, prompt, seed=seed, temperature=1.5).token_ids) for seed in (7, 8, 9)
    ]
    assert [choice.message.content for choice in reply.choices] == expected
    assert len(set(expected)) == 3 and [choice.index for choice in reply.choices] == [0, 1, 2]
    streamed = ["", "", ""]
    for chunk in ask(client, n=3, temperature=1.5, seed=7, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == expected


def test_a_reply_ends_before_a_stop_string_and_its_slot_is_free(live, client):
    whole = ask(client, max_tokens=40).choices[0].message.content
    stop = whole[3:6]
    for settings in ({"stop": stop}, {"stop": ["never to be met", stop]}):
        reply = ask(client, max_tokens=40, **settings)
        assert reply.choices[0].message.content == whole[: whole.index(stop)]
        assert reply.choices[0].finish_reason == "stop"
    streamed = "".join(c.choices[0].delta.content or "" for c in ask(client, max_tokens=40, stop=stop, stream=True))
    assert streamed == whole[: whole.index(stop)]
    free(live)


def test_a_reply_cut_at_its_tokens_says_length(client):
    reply = ask(client, max_tokens=None, max_completion_tokens=2)
    assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("length", 2)


def test_log_probs_are_those_of_the_engine(live, client):
    reply = ask(client, logprobs=True, temperature=0.8, seed=3)
    made = alone(live.engine, live.engine.renderer.prompt_ids(ASK[0]["content"]), temperature=0.8, seed=3)
    told = reply.choices[0].logprobs.content
    shown = [i for i, token in enumerate(made.token_ids) if token not in live.engine.renderer.stop_ids]
    np.testing.assert_allclose([token.logprob for token in told], np.asarray(made.logprobs)[shown], atol=1e-4)
    assert bytes(b for token in told for b in token.bytes).decode() == reply.choices[0].message.content
    streamed = [
        token.logprob
        for chunk in ask(client, logprobs=True, temperature=0.8, seed=3, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    np.testing.assert_allclose(streamed, [token.logprob for token in told], atol=1e-4)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_top_logprobs_are_the_most_probable_tokens_beside_each(client, temperature):
    asked = {"logprobs": True, "temperature": temperature, "seed": 3}
    reply = ask(client, **asked, top_logprobs=5)
    told = reply.choices[0].logprobs.content
    assert told and all(len(token.top_logprobs) == 5 for token in told)
    for token in told:
        best = [top.logprob for top in token.top_logprobs]
        assert best == sorted(best, reverse=True) and np.exp(best).sum() <= 1 + 1e-5
        named = {bytes(top.bytes): top.logprob for top in token.top_logprobs}
        if temperature == 0:
            assert bytes(token.top_logprobs[0].bytes) == bytes(token.bytes)
        if token.logprob > best[-1] + 1e-4:
            np.testing.assert_allclose(named[bytes(token.bytes)], token.logprob, atol=1e-5)
    fewer = ask(client, **asked, top_logprobs=2).choices[0].logprobs.content
    assert [token.top_logprobs for token in fewer] == [token.top_logprobs[:2] for token in told]
    # A reply beside it that asks for none gets none, and is the same.
    plain = ask(client, **asked)
    assert plain.choices[0].message.content == reply.choices[0].message.content
    assert all(token.top_logprobs == [] for token in plain.choices[0].logprobs.content)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"logprobs": True, "top_logprobs": 6}, "started for at most 5"),
        ({"logprobs": True, "top_logprobs": 21}, "from 0 to 20"),
        ({"top_logprobs": 2}, "needs logprobs"),
    ],
)
def test_top_logprobs_that_cannot_be_had_are_refused_with_the_way_out(client, settings, said):
    with pytest.raises(openai.BadRequestError, match=said):
        ask(client, **settings)


def test_top_p_zero_is_greedy(client):
    greedy = ask(client).choices[0].message.content
    assert ask(client, temperature=1, top_p=0, seed=9).choices[0].message.content == greedy


def test_many_at_once_get_what_they_would_get_alone_and_nothing_is_compiled(live, client):
    asked = [
        {"messages": [picture_message(f"What is in {i}?", 40 * (i % 3))], "seed": i, "temperature": 1.0}
        if i % 2
        else {"messages": [{"role": "user", "content": f"Say {i}." * (1 + i % 4)}], "seed": i, "temperature": 1.0}
        for i in range(8)
    ]
    one_by_one = [ask(client, **each).choices[0].message.content for each in asked]
    compiled = Compilations()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: ask(client, **each).choices[0].message.content, asked))
    assert together == one_by_one
    assert compiled.count == 0
    free(live)


def free(live, seconds: float = 10.0) -> None:
    """Waits until all slots are free."""
    give_up = time.monotonic() + seconds
    while live.engine.free_slots < SIZES.num_slots or live.service.load()["waiting"]:
        assert time.monotonic() < give_up, live.service.load()
        time.sleep(0.01)


class Gate:
    """Blocks the engine's decoding until `go`."""

    def __init__(self, engine, monkeypatch):
        self.entered, self.go, self._decode = threading.Event(), threading.Event(), engine.decode
        monkeypatch.setattr(engine, "decode", self)

    def __call__(self, sequences):
        self.entered.set()
        assert self.go.wait(60)
        return self._decode(sequences)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_slots(live, monkeypatch, stream):
    gate = Gate(live.engine, monkeypatch)
    body = {"model": MODEL, "messages": ASK, "temperature": 2, "max_tokens": 200, "n": 3, "seed": 1, "stream": stream}
    sampled = live.engine.stats.sampled_tokens

    async def leave() -> None:
        async with aiohttp.ClientSession() as session:
            asked = asyncio.create_task(session.post(live.url + "/v1/chat/completions", json=body))
            await asyncio.to_thread(gate.entered.wait, 60)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(leave())
    gate.go.set()
    free(live)
    assert live.engine.stats.sampled_tokens - sampled < 3 * 100


def test_a_request_that_cannot_be_served_says_why(client):
    cases = [
        (openai.NotFoundError, "model_not_found", {"model": "other"}),
        (
            openai.BadRequestError,
            "invalid_image",
            {"messages": [url_message("data:image/png;base64,bm90IGFuIGltYWdl")]},
        ),
        (openai.BadRequestError, "invalid_image", {"messages": [url_message("data:image/png;base64,&&&")]}),
        (openai.BadRequestError, "invalid_image", {"messages": [url_message("http://127.0.0.1:9/x.png")]}),
        (openai.BadRequestError, "invalid_image", {"messages": [url_message("/etc/hostname")]}),
        (openai.BadRequestError, "context_length_exceeded", {"messages": [{"role": "user", "content": "word " * 400}]}),
        (openai.BadRequestError, "unsupported_parameter", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (openai.BadRequestError, None, {"temperature": 3}),
        (openai.BadRequestError, None, {"n": 4}),
        (openai.BadRequestError, None, {"messages": []}),
        (
            openai.BadRequestError,
            "context_length_exceeded",
            {"messages": [{"role": "user", "content": "<|im_end|>" * 3000}]},
        ),
        (openai.BadRequestError, None, {"messages": [{"role": "assistant", "content": "x"}]}),
        (openai.BadRequestError, None, {"extra_body": {"search": True}}),
    ]
    for kind, code, settings in cases:
        with pytest.raises(kind) as caught:
            ask(client, **settings)
        assert caught.value.code == code and caught.value.body["message"], settings
        assert caught.value.body["type"] == "invalid_request_error"


def url_message(url: str) -> dict:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_health_and_unknown_routes_are_json(live):
    async def check() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(live.url + "/healthz") as response:
                assert (await response.json())["status"] == "ok"
            async with session.get(live.url + "/health") as response:
                assert (await response.json())["status"] == "ok"
            async with session.get(live.url + "/v1/nothing") as response:
                assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_url")
            surrogate = rb'{"model": "tiny", "messages": [{"role": "user", "content": "\ud800"}]}'
            for body, why in ((b"{", "not JSON"), (b"[" * 100_000, "not JSON"), (surrogate, "not valid Unicode")):
                async with session.post(live.url + "/v1/chat/completions", data=body) as response:
                    assert response.status == 400 and why in (await response.json())["error"]["message"]

    asyncio.run(check())


def test_metrics_count_requests_by_route_and_status_and_tokens(engine):
    async def metrics(url: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(url + "/metrics") as response:
            return await response.text()

    with serving(engine) as own:
        usage = ask(own.client(), max_tokens=4).usage
        with pytest.raises(openai.NotFoundError):
            ask(own.client(), model="other")
        text = asyncio.run(metrics(own.url))
    for line in (
        'mmsearch_serve_requests_total{route="/v1/chat/completions",status="200"} 1.0',
        'mmsearch_serve_requests_total{route="/v1/chat/completions",status="404"} 1.0',
        f'mmsearch_serve_tokens_total{{kind="sampled"}} {float(usage.completion_tokens)}',
        f'mmsearch_serve_tokens_total{{kind="prompt"}} {float(usage.prompt_tokens)}',
        "mmsearch_serve_slots 3.0",
    ):
        assert line in text


@pytest.mark.parametrize("sides", [[(2000, 600)], [(60_000, 60_000)]])
def test_images_of_more_pixels_than_the_limit_are_refused_before_they_are_decoded(engine, monkeypatch, sides):
    def png(width: int, height: int) -> str:
        # The header alone says the size; no pixel follows.
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT"
        return "data:image/png;base64," + base64.b64encode(data + struct.pack(">I", zlib.crc32(b"IDAT"))).decode()

    monkeypatch.setattr(engine, "prepare_image", lambda encoded: pytest.fail("an image was decoded"))
    parts = [{"type": "image_url", "image_url": {"url": png(*each)}} for each in sides]
    with serving(engine, limits=ServeConfig(max_pixels=1_100_000)) as own:
        with pytest.raises(openai.BadRequestError, match="pixels, at most 1,100,000|too large to decode") as caught:
            ask(own.client(), messages=[{"role": "user", "content": parts}])
    assert caught.value.code == "invalid_image"


def test_a_token_is_asked_for_and_large_bodies_are_refused(engine, live):
    with serving(engine, token="secret", limits=ServeConfig(max_body_mib=10_000 / 2**20)) as guarded:
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(guarded.client(api_key="wrong"))
        assert caught.value.code == "invalid_api_key"
        client = guarded.client(api_key="secret")
        assert ask(client).choices[0].message.role == "assistant"
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, [{"role": "user", "content": "x" * 20_000}])
        assert caught.value.status_code == 413


def test_too_many_are_told_to_come_back(engine, live, monkeypatch):
    gate = Gate(engine, monkeypatch)
    with serving(engine, limits=ServeConfig(max_waiting=1)) as small, concurrent.futures.ThreadPoolExecutor(4) as pool:
        client = small.client()
        served = [pool.submit(ask, client, seed=seed, temperature=1) for seed in range(SIZES.num_slots + 1)]
        give_up = time.monotonic() + 60
        # Requests that arrive during a device call get their slots after it.
        while small.service.load()["used"] + small.service.load()["waiting"] < len(served):
            assert time.monotonic() < give_up, small.service.load()
            time.sleep(0.01)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert caught.value.code == "overloaded" and caught.value.response.headers["Retry-After"] == "1"
        # A client with retries succeeds.
        patient = pool.submit(ask, small.client(max_retries=8))
        gate.go.set()
        assert all(reply.result().choices for reply in [*served, patient])
