"""Held signals in this process: they wait, and then go where they would have gone."""

from __future__ import annotations

import signal
import threading

import pytest

from weightslab.engine.errors import CheckpointError
from weightslab.engine.saving.held_signals import HeldSignals, Preempted
from weightslab.engine.saving.policies import OnPreemption

TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def hold(clock):
    """Hold signals back until the end of the test."""
    made = []
    before = {number: signal.getsignal(number) for number in (TERM, INT, USR1)}

    def make(*policies):
        held = HeldSignals(policies or (OnPreemption(),), clock)
        held.holds = True
        made.append(held)
        return held

    yield make
    for held in reversed(made):
        held.release()
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_waits_until_it_is_delivered(hold, clock):
    held = hold()
    clock.now = 5.0
    signal.raise_signal(TERM)
    assert held.arrived == {TERM: 5.0}
    with pytest.raises(Preempted) as caught:
        held.deliver()
    assert (caught.value.code, caught.value.signal) == (143, TERM)
    assert isinstance(caught.value, SystemExit)
    assert held.arrived == {}


def test_ctrl_c_becomes_a_keyboard_interrupt(hold):
    held = hold()
    signal.raise_signal(INT)
    with pytest.raises(KeyboardInterrupt):
        held.deliver()


def test_repeated_orders_to_end_change_nothing(hold, clock):
    held = hold()
    for clock.now in (1.0, 2.0, 9.0):
        signal.raise_signal(TERM)
    assert held.arrived == {TERM: 1.0}


def test_a_second_ctrl_c_does_not_wait_but_one_that_a_launcher_repeats_does(hold, clock):
    held = hold()
    signal.raise_signal(INT)
    clock.now = 0.5
    signal.raise_signal(INT)
    assert held.arrived == {INT: 0.0}
    clock.now = 1.5
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(INT)
    assert held.arrived == {}


def test_the_order_to_end_goes_before_ctrl_c(hold):
    held = hold()
    signal.raise_signal(INT)
    signal.raise_signal(TERM)
    with pytest.raises(Preempted):
        held.deliver()


def test_continue_delivers_nothing_and_may_come_again(hold, clock):
    held = hold(OnPreemption(USR1, then="continue"))
    for clock.now in (1.0, 2.0):
        signal.raise_signal(USR1)
        assert held.arrived == {USR1: clock.now}
        held.deliver()
        assert held.arrived == {}


def test_an_earlier_handler_gets_the_signal_after_the_save(hold):
    calls = []
    before = signal.signal(USR1, lambda number, frame: calls.append(number))
    try:
        held = hold(OnPreemption(USR1))
        signal.raise_signal(USR1)
        assert calls == []
        held.deliver()
        assert calls == [USR1]
        held.release()
        signal.raise_signal(USR1)
        assert calls == [USR1, USR1]
    finally:
        signal.signal(USR1, before)


def test_two_holders_hand_a_signal_on_from_the_later_to_the_earlier(hold):
    first, second = hold(), hold()
    signal.raise_signal(TERM)
    assert (list(first.arrived), list(second.arrived)) == ([], [TERM])
    second.deliver()
    assert list(first.arrived) == [TERM]
    with pytest.raises(Preempted):
        first.deliver()


def test_holders_may_be_released_in_any_order(hold):
    first, second = hold(), hold()
    first.release()
    signal.raise_signal(INT)
    with pytest.raises(KeyboardInterrupt):
        second.deliver()


def test_nothing_is_held_before_there_is_something_to_save(hold):
    held = hold()
    held.holds = False
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(INT)
    assert held.arrived == {}


def test_a_signal_that_is_ignored_stays_ignored(hold):
    before = signal.signal(USR1, signal.SIG_IGN)
    try:
        held = hold(OnPreemption(USR1))
        signal.raise_signal(USR1)
        assert held.arrived == {}
        assert signal.getsignal(USR1) is signal.SIG_IGN
    finally:
        signal.signal(USR1, before)


def test_a_thread_cannot_install_handlers_and_says_so(clock):
    errors = []

    def work():
        with pytest.raises(CheckpointError, match="needs the main thread") as caught:
            HeldSignals([OnPreemption()], clock)
        errors.append(caught.value)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert signal.getsignal(TERM) is signal.SIG_DFL


def test_a_thread_delivers_to_the_main_thread(hold):
    held = hold()
    signal.raise_signal(INT)
    thread = threading.Thread(target=held.deliver)

    def run_to_its_end():
        thread.start()
        thread.join()
        threading.Event().wait(10)

    with pytest.raises(KeyboardInterrupt):  # wherever the main thread is by then
        run_to_its_end()
    thread.join()
