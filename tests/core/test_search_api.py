"""The messages between trainer and search server."""

import pytest

from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.search_api import SearchResult, TextSearchRequest


def test_messages_travel_as_json():
    reply = search_api.SearchReply((SearchResult("a", "b", score=1),), "text_search", (1, 2, 3, 4), True, None, 1.5)
    record = reply.to_json()
    record["new_field"] = 1
    assert search_api.SearchReply.from_json(record) == reply
    assert search_api.ImageSearchRequest.from_json({"image_base64": "x"}).expression is None


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        (search_api.TextSearchRequest, [], "JSON object"),
        (search_api.TextSearchRequest, {}, "'query' is missing"),
        (search_api.TextSearchRequest, {"query": 3}, "query: expected str"),
        (search_api.TextSearchRequest, {"query": "q", "top_k": True}, "top_k: expected int"),
        (search_api.SearchReply, {"results": "x", "tool": "t"}, "list of results"),
        (search_api.SearchReply, {"results": [{}], "tool": "t"}, "'title' is missing"),
        (search_api.SearchReply, {"results": [], "tool": "t", "box": [1, 2]}, "four numbers"),
        (search_api.SearchReply, {"results": [], "tool": "t", "box": [1, 2, 3, float("nan")]}, "finite"),
        (search_api.SearchReply, {"results": [], "tool": "t", "other_boxes": [[1]]}, "four numbers"),
    ],
)
def test_malformed_messages_name_the_field(kind, record, message):
    with pytest.raises(DataError, match=message):
        kind.from_json(record)


def test_a_whole_number_may_be_written_as_a_float():
    assert TextSearchRequest.from_json({"query": "q", "top_k": 10.0}) == TextSearchRequest("q", 10)
    for value in (2.5, True, "3", float("nan"), float("inf")):
        with pytest.raises(DataError, match="top_k"):
            TextSearchRequest.from_json({"query": "q", "top_k": value})
