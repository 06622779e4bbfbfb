"""A model that writes boxes: replies in Qwen2.5-VL's format, and invalid replies."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch_jax.core.chat_client import ChatReply, Unreadable
from tests.tools_server.grounders.endpoints import Endpoint, endpoint
from tools_server.backends.upstream import Sessions
from tools_server.failures import SearchFailure
from tools_server.grounders.chat_grounder import PATCH, read_boxes, sent_size
from tools_server.grounders.choose_grounder import make_grounder
from tools_server.grounders.grounder import Grounding
from tools_server.settings.detection import GrounderSettings
from tools_server.work_pool import WorkPool

ROUTE = "/v1/chat/completions"


def said(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def boxes(*corners: Any) -> str:
    return json.dumps([{"bbox_2d": list(box), "label": "flag"} for box in corners])


def answered(answer: Any, size: tuple[int, int] = (560, 280), **own: Any) -> tuple[Grounding, Endpoint]:
    async def go() -> tuple[Grounding, Endpoint]:
        async with endpoint(ROUTE, lambda n: answer) as model:
            settings = GrounderSettings(kind="chat", url=f"{model.url}/v1", model="vlm", **{"padding": 0.0, **own})
            grounder = make_grounder(settings, Sessions(), WorkPool(1, 8))
            try:
                return await grounder.ground(Image.new("RGB", size), "the flag"), model
            finally:
                await grounder.close()

    return asyncio.run(go())


def sent_image(model: Endpoint) -> Image.Image:
    [image, _] = model.bodies[0]["messages"][0]["content"]
    return Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2])))


def test_the_first_box_is_the_region_and_the_others_follow_in_its_order():
    found, model = answered(
        said(f"```json\n{boxes((20, 10, 120, 90), (300, 40, 400, 140), (200, 100, 260, 160))}\n```")
    )
    assert found.box == (20, 10, 120, 90)
    assert found.others == ((300, 40, 400, 140), (200, 100, 260, 160))
    assert "the flag" in model.bodies[0]["messages"][0]["content"][1]["text"]


def test_pixels_of_the_picture_as_sent_become_pixels_of_the_picture_as_given():
    # 300 x 100 is sent as 308 x 112: x by 300/308, y by 100/112.
    found, model = answered(said(boxes((77, 28, 154, 84))), size=(300, 100))
    assert sent_image(model).size == (308, 112)
    assert found.box == (75, 25, 150, 75)


def test_a_large_picture_is_sent_smaller():
    found, model = answered(said(boxes((0, 0, 560, 560))), size=(4000, 3000))
    width, height = sent_image(model).size
    assert width * height <= 1280 * PATCH**2
    assert (found.box or ())[2:] == (int(np.ceil(560 * 4000 / width)), int(np.ceil(560 * 3000 / height)))


@pytest.mark.parametrize("size", [(8, 8), (9, 1800), (1800, 9), (28, 28), (1000, 1000), (6000, 4000), (24_000, 120)])
def test_sent_sizes_are_multiples_of_a_patch_within_bounds(size: tuple[int, int]):
    width, height = sent_size(size)
    assert width % PATCH == height % PATCH == 0
    assert min(width, height) >= 2 * PATCH
    assert width * height <= 1280 * PATCH**2


def test_nothing_that_fits_is_no_detection():
    found, model = answered(said("[]"))
    assert (found.box, found.search_whole) == (None, True)
    assert len(model.bodies) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"bbox_2d": [1, 2, 30, 40]}', [[1, 2, 30, 40]]),
        ('[{"bbox_2d": [1.5, 2, 30, 40], "label": "a"}]', [[1.5, 2, 30, 40]]),
        ('Here: [{"bbox_2d": [1, 2, 30, 40], "label": "a"}, {"bbox_2d": [5, 6, 7', [[1, 2, 30, 40]]),
        ('[{"bbox_2d": [1, 2, 30]}, {"bbox_2d": [1, 2, 30, 40]}]', [[1, 2, 30, 40]]),
        ('[{"bbox_2d": [1, 2, 1e999, 40]}]', [[1, 2, float("inf"), 40]]),
        ("There is no flag in the image.", []),
    ],
)
def test_boxes_are_read_out_of_whatever_stands_around_them(text: str, wanted: list[list[float]]):
    assert read_boxes(ChatReply(text)).tolist() == wanted


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        (ChatReply(""), "its reply is empty"),
        (ChatReply("[]", refused=True), "declined"),
        (ChatReply('[{"bbox_2d": ["left", "top", 3, 4]}]'), "not four numbers"),
        (ChatReply('[{"bbox_2d": [null, 1, 3, 4]}]'), "not four numbers"),
        (ChatReply('[{"bbox_2d": [1, 2'), "not four numbers"),
    ],
)
def test_what_is_no_answer_is_asked_for_again(completion: ChatReply, why: str):
    with pytest.raises(Unreadable, match=why):
        read_boxes(completion)


@pytest.mark.parametrize(
    ("box", "wanted"),
    [((-9, -9, 9999, 9999), (0, 0, 560, 280)), ((120, 90, 20, 10), (20, 10, 120, 90)), ((float("nan"), 0, 9, 9), None)],
)
def test_boxes_that_lie_are_brought_inside_or_dropped(box: tuple[float, ...], wanted: Any):
    assert answered(said(boxes(box)))[0].box == wanted


def test_thousands_of_boxes_are_read_up_to_a_bound():
    text = boxes(*((i, 0, i + 50, 50) for i in range(5000)))
    assert len(read_boxes(ChatReply(text))) == 1000
    assert len(answered(said(text))[0].others) == 4


@pytest.mark.parametrize(
    ("answer", "code"), [((400, {"error": "s3cret"}), "upstream_error"), ("hang", "upstream_timeout")]
)
def test_failures_are_typed_and_say_nothing_of_the_endpoints(answer: Any, code: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLM_KEY", "s3cret")
    with pytest.raises(SearchFailure) as failure:
        answered(answer, key_env="VLM_KEY", deadline_s=0.3)
    assert failure.value.code == code
    assert "s3cret" not in failure.value.message
