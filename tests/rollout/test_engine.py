"""The engine with a small random policy: exact stops, independence of other slots, and the learner's log-probs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.stand_ins import scripted
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import Answer, render_turn
from mmsearch_jax.images.vision_inputs import pack_images
from mmsearch_jax.rollout.episode import Finish
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.settings.rollout import EngineConfig
from tests.rollout import random_policy
from tests.rollout.random_policy import RENDERER

pytestmark = pytest.mark.usefixtures("guarded_steps")

QUESTION = "What is the capital of the country with this flag?"
SIZES = EngineConfig(
    num_slots=4,
    max_length=256,
    extend_rows=(2,),
    extend_buckets=(16, 64),
    decode_rows=(2,),
    length_buckets=(128,),
    decode_steps=8,
)


@pytest.fixture(scope="module")
def engine():
    return random_policy.engine(SIZES)


def sequence(engine, question=QUESTION, shade=0, seed=0, plain=False, **settings) -> LiveSequence:
    image = engine.prepare_image(random_policy.picture(shade))
    ids = RENDERER.prompt_ids(question, [image.num_tokens])
    return LiveSequence(ids, [image], seed, SamplingParams(**settings), plain)


def play(engine, sequences, max_tokens=40):
    """Samples one turn for each sequence, in parallel, and returns the generations."""
    for live in sequences:
        engine.acquire(live)
        engine.begin_turn(live, max_tokens)
    engine.extend(sequences)
    while todo := [live for live in sequences if live.finish is None]:
        engine.decode(todo)
    generations = [engine.take(live) for live in sequences]
    for live in sequences:
        engine.release(live)
    return generations


def test_log_probs_equal_those_of_the_full_forward_pass(engine):
    live = sequence(engine, seed=3, temperature=0.7, top_k=50)
    (made,) = play(engine, [live])
    ids = [*live.token_ids, *made.token_ids]
    # Scored at the sampling temperature.
    full = np.asarray(jax.nn.log_softmax(random_policy.full_logprobs(ids, live.images) / 0.7, axis=-1))
    picked = full[np.arange(len(live.token_ids) - 1, len(ids) - 1), made.token_ids]
    assert len(made.token_ids) > 5
    np.testing.assert_allclose(made.logprobs, picked, atol=1e-4)


def test_two_turns_over_the_kept_cache_equal_the_full_forward_pass(engine):
    live = sequence(engine, seed=5)
    made, first, observation = (
        None,
        None,
        RENDERER.observation_ids("<information>[1] Peru: Capital: Lima</information>"),
    )
    engine.acquire(live)
    for turn in range(2):
        engine.begin_turn(live, 12)
        engine.extend([live])
        while live.finish is None:
            engine.decode([live])
        made = engine.take(live)
        if turn == 0:
            first = (len(live.token_ids), made)
            live.token_ids += [*made.token_ids, *made.forced_ids, *observation]
    engine.release(live)
    assert first is not None and made is not None
    ids = [*live.token_ids, *made.token_ids]
    full = random_policy.full_logprobs(ids, live.images)
    for start, generation in (first, (len(live.token_ids), made)):
        picked = full[np.arange(start - 1, start - 1 + len(generation.token_ids)), generation.token_ids]
        np.testing.assert_allclose(generation.logprobs, picked, atol=1e-4)


def play_with_a_second_image(engine):
    """Plays two turns; the observation between them shows another image. Also returns where each turn begins."""
    live, made = sequence(engine, seed=5), []
    engine.acquire(live)
    for turn in range(2):
        engine.begin_turn(live, 12)
        engine.extend([live])
        while live.finish is None:
            engine.decode([live])
        made.append((len(live.token_ids), engine.take(live)))
        if turn == 0:
            second = engine.prepare_image(random_policy.picture(3))
            live.images.append(second)
            shown = RENDERER.observation_ids("<information>[1] Peru</information>", [second.num_tokens])
            live.token_ids += [*made[0][1].token_ids, *made[0][1].forced_ids, *shown]
    return live, made


def test_an_image_in_a_later_turn_equals_the_full_forward_pass(engine):
    live, made = play_with_a_second_image(engine)
    engine.release(live)
    full = random_policy.full_logprobs([*live.token_ids, *made[1][1].token_ids], live.images)
    for start, generation in made:
        picked = full[np.arange(start - 1, start - 1 + len(generation.token_ids)), generation.token_ids]
        np.testing.assert_allclose(generation.logprobs, picked, atol=1e-4)
    # Each image has its own features, in the order of the turns.
    for image in live.images:
        vision, (own,) = pack_images([image.processed])
        expected = random_policy.model().encode_images(vision)[own]
        np.testing.assert_allclose(image.features, expected, atol=1e-4)
    assert np.abs(live.images[0].features - live.images[1].features).mean() > 0.1


def test_placeholders_without_their_image_and_the_reverse_are_refused(engine):
    for change, message in [
        (lambda live: live.images.clear(), "the image placeholders at token .* have no image"),
        (lambda live: live.images.append(live.images[0]), "image 1 has no placeholders among the"),
        (lambda live: live.token_ids.remove(RENDERER.image_pad), "image 0 has 6 tokens, but the run .* has 5"),
    ]:
        live = sequence(engine)
        change(live)
        engine.acquire(live)
        engine.begin_turn(live, 8)
        with pytest.raises(DataError, match=f"sequence 0 of the call, from its token 0 on: {message}"):
            engine.extend([live])
        assert live.fed == 0
        engine.release(live)


def test_a_trajectory_does_not_depend_on_its_neighbours_or_its_slot(engine):
    (alone,) = play(engine, [sequence(engine, seed=7)])
    company = [
        sequence(engine, "Who?", 50, seed=1),
        sequence(engine, "Red or blue?", 90, seed=2),
        sequence(engine, seed=7),
    ]
    together = play(engine, company)[2]
    group = play(engine, [sequence(engine, seed=seed) for seed in (4, 5, 7)])[2]
    for other in (together, group):
        assert other.token_ids == alone.token_ids
        np.testing.assert_allclose(other.logprobs, alone.logprobs, atol=1e-4)


def test_seeds_make_different_trajectories_and_greedy_ignores_them(engine):
    sampled = play(engine, [sequence(engine, seed=seed) for seed in range(3)])
    assert len({tuple(made.token_ids) for made in sampled}) == 3
    greedy = play(engine, [sequence(engine, seed=seed, temperature=0.0) for seed in range(3)])
    assert len({tuple(made.token_ids) for made in greedy}) == 1


def test_settings_may_differ_between_neighbours(engine):
    cold, hot = (sequence(engine, seed=1, temperature=0.0), sequence(engine, seed=1, temperature=5.0, top_p=0.9))
    together = play(engine, [cold, hot])
    alone = play(engine, [sequence(engine, seed=1, temperature=0.0)])[0]
    assert together[0].token_ids == alone.token_ids != together[1].token_ids


def test_markup_is_never_sampled_but_the_end_of_a_message_may_be(engine):
    made = play(engine, [sequence(engine, seed=seed, temperature=100.0) for seed in range(4)], max_tokens=100)
    ids = {token for generation in made for token in generation.token_ids}
    banned = {RENDERER.im_start, RENDERER.image_pad, RENDERER.vision_start, RENDERER.vision_end}
    assert len(ids) > 50 and not ids & banned


def test_a_turn_ends_at_its_budget(engine):
    made = play(engine, [sequence(engine, seed=1), sequence(engine, seed=2)], max_tokens=11)
    for generation in made:
        assert generation.finish in (Finish.LENGTH, Finish.STOP) and len(generation.token_ids) <= 11
    assert any(generation.finish == Finish.LENGTH for generation in made)


def test_long_prompts_go_in_pieces_and_give_the_same(engine):
    question = QUESTION * 2
    (pieces,) = play(engine, [sequence(engine, question, seed=2)])
    whole = random_policy.engine(dataclasses.replace(SIZES, extend_buckets=(256,), length_buckets=()))
    (once,) = play(whole, [sequence(whole, question, seed=2)])
    assert pieces.token_ids == once.token_ids


def test_an_evicted_sequence_goes_on_as_if_it_had_stayed(engine):
    def two_turns(evict):
        live = sequence(engine, seed=11)
        engine.acquire(live)
        engine.begin_turn(live, 8)
        engine.extend([live])
        engine.decode([live])
        made = engine.take(live)
        live.token_ids += [*made.token_ids, *RENDERER.observation_ids("<information>x</information>")]
        if evict:
            engine.release(live)
            (other,) = [sequence(engine, "Who?", 9, seed=3)]
            engine.acquire(other)
            engine.begin_turn(other, 4)
            engine.extend([other])
            engine.acquire(live)
            engine.release(other)
        engine.begin_turn(live, 8)
        engine.extend([live])
        engine.decode([live])
        made = engine.take(live)
        engine.release(live)
        return made

    stayed, evicted = two_turns(False), two_turns(True)
    assert stayed.token_ids == evicted.token_ids
    np.testing.assert_allclose(stayed.logprobs, evicted.logprobs, atol=1e-4)


def test_images_matter_and_are_encoded_once_until_the_weights_change(engine):
    before = engine.stats.encoded_images
    red, blue = (play(engine, [sequence(engine, shade=shade, temperature=0.0)])[0] for shade in (201, 15))
    again = play(engine, [sequence(engine, shade=201, temperature=0.0)])[0]
    assert engine.stats.encoded_images == before + 2
    assert not np.allclose(red.logprobs[0], blue.logprobs[0]) and again.logprobs == red.logprobs
    state = jax.tree.map(lambda x: x, engine._weights)
    engine.set_weights(state, 4, keep_image_features=True)
    play(engine, [sequence(engine, shade=201)])
    assert engine.stats.encoded_images == before + 2 and engine.policy_version == 4
    engine.set_weights(state, 5)
    play(engine, [sequence(engine, shade=201)])
    assert engine.stats.encoded_images == before + 3


def test_new_weights_are_used(engine):
    old = play(engine, [sequence(engine, temperature=0.0)])[0]
    state = engine._weights
    engine.set_weights(jax.tree.map(lambda x: x * jnp.asarray(1.5, x.dtype), state), 1)
    assert play(engine, [sequence(engine, temperature=0.0)])[0].logprobs != old.logprobs
    engine.set_weights(state, 2)
    assert play(engine, [sequence(engine, temperature=0.0)])[0].logprobs == old.logprobs


def test_a_token_that_reaches_beyond_the_closing_tag_is_replaced_by_the_rest_of_the_tag():
    text = render_turn("So.", Answer("Lima"))
    beyond = next(i for i, b in enumerate(scripted.RENDERER.token_bytes) if b.startswith(b"><"))
    playing = scripted.engine(scripted.Play(1, [text]))
    prompt = RENDERER.prompt_ids("Where#?\nSearch if needed.", [4])
    written = scripted.RENDERER.encode(text[:-1])
    scripts = np.zeros((2, 513), np.int32)
    scripts[1, : len(prompt) + len(written) + 1] = [*prompt, *written, beyond]
    state = jax.tree.map(lambda _: jnp.asarray(scripts), playing._weights)
    playing.set_weights(state, 1)
    live = LiveSequence(prompt, [playing.prepare_image(scripted.picture())])
    (made,) = play(playing, [live], max_tokens=100)
    assert made.finish == Finish.CLOSED
    assert made.token_ids == written and scripted.RENDERER.decode([*written, *made.forced_ids]) == text


def test_work_is_done_in_few_calls(engine):
    calls = engine.stats.extend_calls
    play(engine, [sequence(engine, seed=seed) for seed in range(4)])
    assert engine.stats.extend_calls == calls + 1
