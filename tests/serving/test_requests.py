"""Errors for invalid chat requests: the path of the field, and the expected value."""

import pytest

from mmsearch_jax.serving.requests import ApiError, read_request

USER = {"role": "user", "content": "Where?"}


def asked(**fields):
    return {"messages": [USER], **fields}


def parts(*content):
    return {"messages": [{"role": "user", "content": list(content)}]}


@pytest.mark.parametrize(
    ("body", "param", "expected"),
    [
        ({}, "messages", "a list with at least one message"),
        (asked(temperature=3), "temperature", "a number from 0 to 2"),
        (asked(temperature=True), "temperature", "a number from 0 to 2"),
        (asked(n="2"), "n", "an integer from 1 to 128"),
        (asked(stop=[1]), "stop", "a list of at most 16 strings"),
        (asked(stream_options={"include_usage": "yes"}), "stream_options.include_usage", "of type bool"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "messages[0].role", "one of system, developer, user"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "a string or a list of parts"),
        (parts({"type": "text", "txt": "x"}), "messages[0].content[0].text", "a string"),
        (parts({"type": "audio"}), "messages[0].content[0].type", "'text', or in a user's message 'image_url'"),
        (
            parts({"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": ""}}),
            "messages[0].content[1].image_url.url",
            "a string",
        ),
    ],
)
def test_the_message_names_the_field_and_what_it_takes(body, param, expected):
    with pytest.raises(ApiError) as raised:
        read_request(body)
    assert (raised.value.status, raised.value.param) == (400, param)
    assert raised.value.message.startswith(param) and expected in raised.value.message


def test_a_null_counts_as_absent_and_an_unknown_field_is_passed_over():
    request = read_request(asked(temperature=None, n=None, stop=None, user="someone"))
    assert (request.sampling.temperature, request.n, request.stop) == (1.0, 1, ())
