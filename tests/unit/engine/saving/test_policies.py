"""Save policies: what each of them says about a moment, and what they refuse."""

from __future__ import annotations

import dataclasses
import signal

import pytest

from weightslab.engine.saving.policies import (
    AnySave,
    AtExit,
    FixedInterval,
    InitialSave,
    Moment,
    OnException,
    OnPreemption,
    SpecificSteps,
    TimeInterval,
    signal_name,
)


def saved(policy, steps, previous=None):
    found = []
    for step in steps:
        if policy.find_reason(Moment(step=step, previous_step=previous)) is not None:
            found.append(step)
        previous = step
    return found


def test_fixed_interval_saves_multiples_and_not_step_0():
    assert saved(FixedInterval(3), range(10)) == [3, 6, 9]
    assert FixedInterval(3).find_reason(Moment(step=3)) == "every 3 steps"


def test_fixed_interval_saves_the_first_step_after_a_multiple_that_was_jumped_over():
    assert saved(FixedInterval(100), [40, 99, 105, 199, 405, 406]) == [105, 405]


def test_fixed_interval_goes_on_where_a_loaded_step_ended():
    assert saved(FixedInterval(100), [305, 306], previous=299) == [305]
    assert saved(FixedInterval(100), [301, 302], previous=300) == []


def test_fixed_interval_of_a_rewound_run_saves_multiples():
    assert saved(FixedInterval(10), [200, 201, 202, 210], previous=500) == [200, 210]
    assert saved(FixedInterval(10), [200, 200]) == [200]


def test_time_interval_saves_when_the_time_is_up():
    policy = TimeInterval(60)
    assert policy.find_reason(Moment(step=1, seconds_since_save=59.9)) is None
    assert policy.find_reason(Moment(step=1, seconds_since_save=60.0)) == "every 60 s"


def test_specific_steps_are_saved_once_each_and_late_where_they_were_jumped_over():
    policy = SpecificSteps([50, 10, 10])
    assert policy.steps == (10, 50)
    assert saved(policy, range(8, 13)) == [10]
    assert saved(policy, [8, 12, 49, 55]) == [12, 55]
    assert policy.find_reason(Moment(step=55, previous_step=49)) == "step 50 was chosen"


def test_initial_save_is_for_an_experiment_without_checkpoints():
    assert InitialSave().find_reason(Moment(step=7)) == "first step"
    assert InitialSave().find_reason(Moment(step=7, has_checkpoint=True)) is None


def test_policies_of_the_end_say_nothing_in_the_loop():
    policy = OnPreemption() | OnException() | AtExit()
    assert policy.find_reason(Moment(step=1, previous_step=0, seconds_since_save=1e9)) is None


@pytest.mark.parametrize("occasion", ["signal", "exception", "exit"])
def test_policies_of_the_loop_say_nothing_at_its_end(occasion):
    policy = FixedInterval(1) | TimeInterval(1) | SpecificSteps([2]) | InitialSave()
    moment = Moment(step=2, previous_step=1, seconds_since_save=9.0, occasion=occasion)
    assert policy.find_reason(moment) is None


def test_reasons_of_the_end():
    assert OnException().find_reason(Moment(step=1, occasion="exception")) == "exception"
    assert OnException().find_reason(Moment(step=1, occasion="exit")) is None
    assert AtExit().find_reason(Moment(step=1, occasion="exit")) == "exit"
    assert AtExit().find_reason(Moment(step=1, occasion="exception")) == "exit"
    moment = Moment(step=1, occasion="signal", signal=signal.SIGTERM)
    assert OnPreemption().find_reason(moment) == "SIGTERM"
    assert OnPreemption(signal.SIGINT).find_reason(moment) is None


def test_any_save_is_flat_gives_the_first_reason_and_drops_repetitions():
    policy = (FixedInterval(2) | InitialSave()) | (FixedInterval(2) | AtExit())
    assert policy == AnySave(FixedInterval(2), InitialSave(), AtExit())
    assert policy.find_reason(Moment(step=2)) == "every 2 steps"
    assert policy.find_reason(Moment(step=1)) == "first step"


def test_a_policy_of_ones_own_joins_from_both_sides():
    class Weekly:
        def find_reason(self, moment):
            return "weekly" if moment.step == 7 else None

    mine = Weekly()
    for policy in (mine | FixedInterval(100), FixedInterval(100) | mine):
        assert policy.find_reason(Moment(step=7)) == "weekly"
    assert (mine | FixedInterval(100)).policies == (mine, FixedInterval(100))


def test_policies_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FixedInterval(3).interval_steps = 4
    assert hash(SpecificSteps([1])) == hash(SpecificSteps((1,)))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: FixedInterval(0), ValueError, "interval_steps is an int >= 1, not 0"),
        (lambda: FixedInterval(True), TypeError, "interval_steps is an int"),
        (lambda: FixedInterval(2.5), TypeError, "not 2.5"),
        (lambda: TimeInterval(0), ValueError, "interval_seconds is a number of seconds > 0"),
        (lambda: TimeInterval(float("nan")), ValueError, "not nan"),
        (lambda: TimeInterval("60"), TypeError, "interval_seconds"),
        (lambda: SpecificSteps([]), ValueError, "would never save"),
        (lambda: SpecificSteps([-1]), ValueError, "each of steps is an int >= 0"),
        (lambda: SpecificSteps(7), TypeError, "a collection of ints, not 7"),
        (lambda: SpecificSteps("12"), TypeError, "a collection of ints"),
        (lambda: OnPreemption(()), ValueError, "no signals"),
        (lambda: OnPreemption(("SIGTERM",)), ValueError, "not 'SIGTERM'"),
        (lambda: OnPreemption(signal.SIGKILL), ValueError, "SIGKILL cannot be held back"),
        (lambda: OnPreemption(then="stop"), ValueError, "'exit', 'signal', 'continue'"),
        (lambda: OnPreemption(grace_seconds=-1), ValueError, "grace_seconds"),
        (AnySave, ValueError, "no policies"),
        (lambda: FixedInterval(1) | 100, TypeError, "100 is no save policy"),
        (lambda: FixedInterval(1) | AtExit, TypeError, "the class AtExit is no save policy"),
    ],
)
def test_wrong_arguments_are_refused_in_words(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_two_rules_for_one_signal_contradict_each_other():
    with pytest.raises(ValueError, match="contradict each other: both are about SIGTERM"):
        OnPreemption() | OnPreemption(signal.SIGTERM, then="signal")
    both = OnPreemption() | OnPreemption(signal.SIGUSR1, then="continue")
    assert len(both.policies) == 2
    assert OnPreemption() | OnPreemption() == AnySave(OnPreemption())


def test_signals_have_names():
    assert signal_name(signal.SIGTERM) == "SIGTERM"
    assert signal_name(signal.SIGRTMIN + 3) == f"signal {signal.SIGRTMIN + 3}"
