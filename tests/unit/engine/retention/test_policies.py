"""What each policy keeps of a sequence of checkpoints."""

import math

import pytest
from support.histories import A, History

from weightslab.engine.retention.policies import (
    AnyOf,
    BestN,
    ByteBudget,
    CustomSteps,
    EveryNSeconds,
    EveryNSteps,
    LatestN,
    PreserveAll,
    policies_in,
)
from weightslab.engine.retention.rules import Retention


def entries_of(history):
    return [member.entry for member in history.candidates]


def kept_steps(policy, history):
    entries = entries_of(history)
    reasons = policy.choose(entries)
    assert len(reasons) == len(entries)
    return [e.name.step for e, reason in zip(entries, reasons, strict=True) if reason]


@pytest.fixture
def line():
    history = History()
    history.line(A, [0, 100, 200, 300, 400])
    return history


def rated(*values):
    history = History()
    for step, value in enumerate(values):
        history.save(A, step, metrics={} if value is None else {"loss": value})
    return history


def test_preserve_all_keeps_everything(line):
    assert kept_steps(PreserveAll(), line) == [0, 100, 200, 300, 400]


def test_latest_keeps_what_was_committed_last_not_the_highest_steps():
    history = History()
    history.line(A, [100, 200, 300, 50])
    assert kept_steps(LatestN(2), history) == [300, 50]


def test_latest_counts_a_step_once_however_many_revisions_it_has():
    history = History()
    for step, revision in ((1, 1), (2, 1), (2, 2), (2, 3)):
        history.save(A, step, revision=revision)
    reasons = LatestN(2).choose(entries_of(history))
    assert [reason is not None for reason in reasons] == [True, False, False, True]


def test_best_keeps_the_lowest_or_the_highest():
    history = rated(0.5, 0.1, 0.9, 0.3)
    assert kept_steps(BestN("loss", 2), history) == [1, 3]
    assert kept_steps(BestN("loss", 1, "max"), history) == [2]


def test_of_equally_good_ones_the_newer_is_the_best():
    assert kept_steps(BestN("loss"), rated(0.1, 0.5, 0.1)) == [2]


def test_nan_is_the_worst_value_and_is_not_without_the_metric():
    history = rated(math.nan, 0.5, None, math.inf)
    assert kept_steps(BestN("loss", 3), history) == [1, 2, 3]
    only = BestN("loss", 3, keep_checkpoints_without_metrics=False)
    assert kept_steps(only, history) == [1, 3]


def test_best_takes_integers_beyond_every_float():
    assert kept_steps(BestN("loss", 1, "max"), rated(1.0, 10**400, 2.0)) == [1]


def test_every_n_steps_keeps_multiples_and_zero(line):
    assert kept_steps(EveryNSteps(200), line) == [0, 200, 400]


def test_every_n_seconds_counts_from_the_last_one_kept():
    history = History()
    for step, minute in enumerate((0, 4, 6, 9, 11, 12)):
        history.save(A, step, minutes=minute)
    assert kept_steps(EveryNSeconds(300), history) == [0, 2, 4]


def test_chosen_steps_are_kept(line):
    assert kept_steps(CustomSteps({100, 400, 999}), line) == [100, 400]


def test_policies_are_joined_by_a_bar_and_flattened():
    joined = LatestN(2) | BestN("loss") | (EveryNSteps(10) | CustomSteps([3]))
    assert joined == AnyOf(LatestN(2), BestN("loss"), EveryNSteps(10), CustomSteps([3]))
    assert policies_in(joined) == (LatestN(2), BestN("loss"), EveryNSteps(10), CustomSteps([3]))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: LatestN(0), ValueError),
        (lambda: LatestN(-1), ValueError),
        (lambda: LatestN(2.5), TypeError),
        (lambda: LatestN(True), TypeError),
        (lambda: LatestN(2, scope="all"), ValueError),
        (lambda: BestN(""), ValueError),
        (lambda: BestN(3), TypeError),
        (lambda: BestN("loss", 0), ValueError),
        (lambda: BestN("loss", mode="lowest"), ValueError),
        (lambda: BestN("loss", keep_checkpoints_without_metrics=None), TypeError),
        (lambda: EveryNSteps(0), ValueError),
        (lambda: EveryNSeconds(0), ValueError),
        (lambda: EveryNSeconds(math.nan), ValueError),
        (lambda: EveryNSeconds("60"), TypeError),
        (lambda: CustomSteps([]), ValueError),
        (lambda: CustomSteps([-1]), ValueError),
        (lambda: CustomSteps(["1"]), TypeError),
        (lambda: ByteBudget(-1), ValueError),
        (lambda: ByteBudget(1e9), TypeError),
        (AnyOf, ValueError),
        (lambda: AnyOf(3), TypeError),
        (lambda: AnyOf(LatestN), TypeError),
        (lambda: Retention(keep="all"), TypeError),
        (lambda: Retention(budget=10**9), TypeError),
        (lambda: Retention(trash_lifetime=7), TypeError),
        (lambda: Retention.of(7), TypeError),
    ],
)
def test_what_makes_no_sense_is_refused(make, error):
    with pytest.raises(error):
        make()


def test_a_budget_among_policies_says_where_it_belongs():
    with pytest.raises(ValueError, match=r"Retention\(keep=..., budget=ByteBudget"):
        LatestN(2) | ByteBudget(1000)


def test_a_policy_or_a_budget_alone_stands_for_a_retention():
    assert Retention.of(LatestN(2)) == Retention(keep=LatestN(2))
    assert Retention.of(ByteBudget(5)) == Retention(budget=ByteBudget(5))
    assert Retention.of(None) == Retention()
    assert Retention.of(Retention(keep=LatestN(2))) == Retention(keep=LatestN(2))


def test_an_object_with_scope_and_choose_is_a_policy():
    class Odd:
        scope = "experiment"

        def choose(self, checkpoints):
            return ["odd" if e.name.step % 2 else None for e in checkpoints]

    assert len(policies_in(LatestN(1) | Odd())) == 2


@pytest.mark.parametrize("part", ["keep", "training"])
def test_scope_root_of_any_part_spans_the_root(part):
    assert Retention(**{part: LatestN(1) | LatestN(3, scope="root")}).spans_root
    assert not Retention(**{part: LatestN(1)}).spans_root
    assert Retention(budget=ByteBudget(1, scope="root")).spans_root
