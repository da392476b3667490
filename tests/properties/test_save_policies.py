"""Save policies against evaluators that look at every single step, over random histories."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.saving.policies import (
    AnySave,
    FixedInterval,
    InitialSave,
    Moment,
    SpecificSteps,
    TimeInterval,
)

STEPS = st.integers(0, 60)
# steps that go on, jump, stand still or go back; a load in between states where the run goes on from
HISTORY = st.lists(st.tuples(st.sampled_from(["step", "step", "step", "load"]), STEPS), max_size=40)


def passed(previous, step):
    """Every step that was completed between two calls."""
    if previous is None or previous > step:
        return {step}
    return set(range(previous + 1, step + 1))


def replay(policy, history):
    """Yield (step, previous, saved) of each step of a history."""
    previous = None
    for kind, step in history:
        if kind == "step":
            moment = Moment(step=step, previous_step=previous)
            yield step, previous, policy.find_reason(moment) is not None
        previous = step


@given(HISTORY, st.integers(1, 25))
@settings(max_examples=300, deadline=None)
def test_fixed_interval_saves_where_a_multiple_was_completed(history, interval):
    for step, previous, is_saved in replay(FixedInterval(interval), history):
        multiples = {n for n in passed(previous, step) if n and n % interval == 0}
        assert is_saved == bool(multiples)


@given(HISTORY, st.sets(STEPS, min_size=1))
@settings(max_examples=300, deadline=None)
def test_specific_steps_saves_where_a_chosen_step_was_completed(history, chosen):
    for step, previous, is_saved in replay(SpecificSteps(chosen), history):
        assert is_saved == bool(chosen & passed(previous, step))


@given(st.lists(st.floats(0.0, 30.0), max_size=40), st.integers(1, 40))
def test_time_interval_never_waits_longer_than_it_says_and_a_step(waits, interval):
    policy, since = TimeInterval(interval), 0.0
    for step, wait in enumerate(waits):
        since += wait
        is_saved = policy.find_reason(Moment(step=step, seconds_since_save=since)) is not None
        assert is_saved == (since >= interval)
        since = 0.0 if is_saved else since


MOMENTS = st.builds(
    Moment,
    step=STEPS,
    previous_step=st.none() | STEPS,
    has_checkpoint=st.booleans(),
    seconds_since_save=st.floats(0, 100),
    occasion=st.sampled_from(["step", "signal", "exception", "exit"]),
)
POLICIES = st.one_of(
    st.builds(FixedInterval, st.integers(1, 20)),
    st.builds(TimeInterval, st.floats(0.1, 90)),
    st.builds(SpecificSteps, st.sets(STEPS, min_size=1)),
    st.just(InitialSave()),
)


@given(st.lists(POLICIES, min_size=1, max_size=5), MOMENTS)
@settings(max_examples=300, deadline=None)
def test_any_save_saves_where_one_of_its_policies_does(policies, moment):
    reasons = [policy.find_reason(moment) for policy in policies]
    assert AnySave(*policies).find_reason(moment) == next(filter(None, reasons), None)
