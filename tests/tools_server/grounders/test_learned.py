"""A scripted detector behind a queue: requests that wait, are refused or time out."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from PIL import Image

from tools_server.failures import SearchFailure
from tools_server.grounders.choose import Detections
from tools_server.grounders.learned import LearnedGrounder
from tools_server.settings.detection import DetectionRules

IMAGE = Image.new("RGB", (100, 80))


class Scripted:
    """Finds one box after it is released; records the calling threads and the expressions."""

    def __init__(self):
        self.go_on, self.begun = threading.Event(), threading.Event()
        self.asked: list[str] = []
        self.threads: set[int] = set()

    def detect(self, image: Image.Image, expression: str) -> Detections:
        self.begun.set()
        assert self.go_on.wait(20)
        self.asked.append(expression)
        self.threads.add(threading.get_ident())
        if expression == "break":
            raise RuntimeError("out of memory")
        return Detections(np.array([[10.0, 20.0, 50.0, 60.0]]), np.array([0.9]))


def grounder(detector: Scripted, max_waiting: int = 8, deadline_s: float = 20.0) -> LearnedGrounder:
    return LearnedGrounder("scripted", detector, DetectionRules(padding=0.0), max_waiting, deadline_s)


def test_many_at_once_are_answered_by_one_thread():
    async def go() -> None:
        detector = Scripted()
        detector.go_on.set()
        asked = grounder(detector)
        found = await asyncio.gather(*(asked.ground(IMAGE, str(i)) for i in range(8)))
        assert {item.box for item in found} == {(10, 20, 50, 60)}
        assert sorted(detector.asked) == [str(i) for i in range(8)]
        assert len(detector.threads) == 1
        assert threading.get_ident() not in detector.threads
        await asked.close()

    asyncio.run(go())


def test_what_is_more_than_may_wait_is_refused_at_once():
    async def go() -> None:
        detector = Scripted()
        asked = grounder(detector, max_waiting=2)
        waiting = [asyncio.create_task(asked.ground(IMAGE, str(i))) for i in range(2)]
        await asyncio.to_thread(detector.begun.wait, 20)
        with pytest.raises(SearchFailure) as refused:
            await asked.ground(IMAGE, "too much")
        assert (refused.value.code, refused.value.passing) == ("overloaded", True)
        detector.go_on.set()
        await asyncio.gather(*waiting)
        await asked.close()

    asyncio.run(go())


def test_after_the_deadline_it_is_a_typed_failure_and_what_waited_is_not_begun():
    async def go() -> None:
        detector = Scripted()
        asked = grounder(detector, deadline_s=0.05)
        results = await asyncio.gather(*(asked.ground(IMAGE, str(i)) for i in range(3)), return_exceptions=True)
        assert [error.code for error in results if isinstance(error, SearchFailure)] == ["upstream_timeout"] * 3
        detector.go_on.set()
        await asked.close()
        assert detector.asked == ["0"]

    asyncio.run(go())


def test_a_detector_that_breaks_breaks_one_answer():
    async def go() -> None:
        detector = Scripted()
        detector.go_on.set()
        asked = grounder(detector)
        with pytest.raises(RuntimeError):
            await asked.ground(IMAGE, "break")
        assert (await asked.ground(IMAGE, "again")).box == (10, 20, 50, 60)
        await asked.close()

    asyncio.run(go())
