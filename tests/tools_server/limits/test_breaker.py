"""The circuit breaker's three states, with a fake clock."""

import pytest

from tools_server.limits.breaker import CircuitBreaker, Resting


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def opened(clock):
    breaker = CircuitBreaker(window=4, failing_share=0.75, rest_s=10.0, clock=clock)
    for succeeded in (True, False, False, False):
        breaker.record(succeeded, breaker.admit())
    return breaker


def test_it_stays_closed_while_enough_calls_succeed():
    breaker = CircuitBreaker(window=4, failing_share=0.75, rest_s=10.0)
    for i in range(40):
        breaker.record(i % 2 == 0, breaker.admit())
    assert breaker.state == "closed"


def test_it_opens_when_almost_all_fail_and_says_for_how_long():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 4
    with pytest.raises(Resting) as caught:
        breaker.admit()
    assert (breaker.state, caught.value.rest_s) == ("open", 6.0)


def test_after_its_rest_one_call_goes_through_and_decides():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.state == "half-open"
    assert breaker.admit() is True
    with pytest.raises(Resting):
        breaker.admit()
    breaker.record(False, probe=True)
    assert breaker.state == "open"
    clock.now += 10
    breaker.record(True, breaker.admit())
    assert breaker.state == "closed"
    assert breaker.admit() is False


def test_a_late_answer_from_before_decides_nothing():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.admit()
    breaker.record(True, probe=False)
    assert breaker.state == "half-open"


def test_a_cancelled_trial_lets_the_next_one_try():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.forget(breaker.admit())
    assert breaker.admit() is True


def test_a_window_of_nothing_never_opens():
    breaker = CircuitBreaker(window=0, failing_share=0.75, rest_s=10.0)
    for _ in range(100):
        breaker.record(False, breaker.admit())
    assert breaker.state == "closed"
