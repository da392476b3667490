"""Replay: what tells two records of a step apart."""

from __future__ import annotations

import math

import pytest

from weightslab.engine.replay import ReplayReport, first_difference
from weightslab.engine.saving.trail import StepRecord


def record(step=1, uids=None, **metrics):
    return StepRecord(step=step, metrics=metrics, uids=uids, shown="[1, 2]")


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        (record(loss=0.1), record(loss=0.1), None),
        (record(loss=0.1), record(loss=math.nextafter(0.1, 1)), "step 1: loss was 0.1, now it is"),
        (record(loss=math.nan), record(loss=math.nan), None),
        (record(loss=0.0), record(loss=-0.0), "step 1: loss was 0.0, now it is -0.0"),
        (record(n=1), record(n=1.0), "step 1: n was 1, now it is 1.0"),
        (record(n=10**400), record(n=10**400), None),
        (record(uids="a"), record(uids="b"), r"step 1: another batch; now it is [1, 2]"),
        (record(uids="a"), record(), None),
        (record(a=1), record(b=2), None),
        (record(2, loss=1), record(3, loss=2), None),
        (record(uids="a", loss=1), record(uids="b", loss=2), "step 1: another batch"),
    ],
)
def test_bits_count_and_what_only_one_side_knows_does_not(then, now, told):
    found = first_difference([then], [now])
    assert (found or "").startswith(told or "")
    assert (found is None) == (told is None)


def test_the_first_step_that_differs_is_told():
    then = [record(step, loss=step) for step in range(5)]
    now = [record(step, loss=step + (step > 2)) for step in range(5)]
    assert first_difference(then, now) == "step 3: loss was 3, now it is 4"


def test_a_report_is_a_line_for_people():
    report = ReplayReport(from_step=3, to_step=8, num_compared=5, state_compared=True)
    assert str(report) == (
        "steps 3 to 8 again: 5 compared, the state at the end too; no difference"
    )
    assert str(ReplayReport(why_not="none")) == "nothing was verified: none"
