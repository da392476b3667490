"""Retention over random histories: what is never dropped, what is always reached, told by other code."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.histories import A, B, C, History, carried_out, file_of, total_bytes

from weightslab.engine.retention.planning import DROP, KEEP, LEAVE, THIN, plan_retention
from weightslab.engine.retention.policies import (
    BestN,
    ByteBudget,
    CustomSteps,
    EveryNSeconds,
    EveryNSteps,
    LatestN,
    PreserveAll,
)
from weightslab.engine.retention.rules import Retention

SHARED = [("x", 70), ("y", 130), ("z", 90)]  # files that several checkpoints may have links to


class Digits:
    """Small numbers out of one large one."""

    def __init__(self, number):
        self._number = number

    def below(self, limit):
        self._number, digit = divmod(self._number, limit)
        return digit


def history_of(numbers):
    """Make a history; each number is a checkpoint, and 0 is the plainest one."""
    history, names = History(), []
    for at, number in enumerate(numbers):
        digits = Digits(number)
        exp_hash, step = (A, B, C)[digits.below(3)], digits.below(4)
        parent = digits.below(8)
        of_step = [n for n in names if (n.exp_hash, n.step) == (exp_hash, step)]
        metric = (None, 0.0, 1.0, 2.0, math.nan)[digits.below(5)]
        facts = {
            "parent": names[-parent] if 0 < parent <= len(names) else None,
            "via": ((), (), (), (A,), (B,), (C,))[digits.below(6)],
            "metrics": {} if metric is None else {"loss": metric},
            "training": (200, 50, 0)[digits.below(3)],
            "is_pinned": digits.below(10) == 9,
            "untouchable": "unknown" if digits.below(16) == 15 else None,
            "damaged": "cut" if digits.below(8) == 7 else None,
            "minutes": at + (0, 0, 0, 2, -2)[digits.below(5)],
        }
        name = history.save(exp_hash, step, revision=len(of_step) + 1, **facts)
        shared = digits.below(6)
        if shared < len(SHARED):
            made = history.candidates[-1]
            key, size_bytes = SHARED[shared]
            more = file_of(f"{name.stem}.ref1", size_bytes, f"shared {key}")
            history.candidates[-1] = replace(made, files=(*made.files, more))
        if of_step and digits.below(4) == 3:
            become_thinned(history, of_step[-1])
        names.append(name)
    return counted(history.candidates)


def counted(candidates):
    """Return checkpoints whose files know how many names their bytes have."""
    names = Counter(file.identity for member in candidates for file in member.files)
    return [
        replace(m, files=tuple(replace(f, num_links=names[f.identity]) for f in m.files))
        for m in candidates
    ]


def become_thinned(history, origin):
    """Make the newest checkpoint what thinning makes of another revision of its step."""
    old = next(c for c in history.candidates if c.entry.name == origin)
    made = history.candidates[-1]
    files = tuple(file for file in old.files if not file.is_training)
    entry = replace(old.entry, name=made.entry.name, digest=made.entry.digest, parts=("model",))
    history.candidates[-1] = replace(
        made, entry=entry, files=files, derived_from=old.entry.digest, damaged=None
    )


def retention_of(number):
    """Make a retention; 0 keeps the newest of each experiment alone."""
    digits = Digits(number)
    keep, training = policy_of(digits), policy_of(digits) if digits.below(2) else PreserveAll()
    if digits.below(2):
        keep = keep | policy_of(digits)
    budget = None
    if digits.below(2):
        budget = ByteBudget(digits.below(16) * 100, scope=("experiment", "root")[digits.below(2)])
    return Retention(keep=keep, training=training, budget=budget)


def policy_of(digits):
    scope = ("experiment", "root")[digits.below(2)]
    kind, n = digits.below(7), 1 + digits.below(3)
    return (
        LatestN(n, scope=scope),
        BestN("loss", n, scope=scope, keep_checkpoints_without_metrics=False),
        BestN("loss", n, "max", scope=scope),
        EveryNSteps(n, scope=scope),
        EveryNSeconds(90 * n, scope=scope),
        CustomSteps([n, 0], scope=scope),
        PreserveAll(scope=scope),
    )[kind]


# ---------------------------------------------------------------- the rules, told once more
def order(member):
    entry = member.entry
    return entry.sequence, entry.created_at, entry.name.step, entry.name.revision


def recency(member):
    entry, name = member.entry, member.entry.name
    return entry.created_at, entry.sequence, name.exp_hash, name.step, name.revision


def groups(members, scope):
    if scope == "root":
        return [sorted(members, key=recency)] if members else []
    hashes = sorted({m.entry.name.exp_hash for m in members})
    return [sorted((m for m in members if m.entry.name.exp_hash == h), key=order) for h in hashes]


def stays_anyway(members, retention):
    """Return the names that nothing may drop, for what they are."""
    found = {m.entry.name for m in members if m.is_pinned or m.untouchable}
    found |= {
        group[-1].entry.name for scope in ("experiment", "root") for group in groups(members, scope)
    }
    for policy in retention.metrics:
        for group in groups(members, policy.scope):
            rated = [m for m in group if m.entry.metrics.get("loss", math.nan) >= 0]
            sign = 1 if policy.mode == "max" else -1
            best = max((sign * m.entry.metrics["loss"] for m in rated), default=None)
            found |= {
                m.entry.name
                for m in [m for m in rated if sign * m.entry.metrics["loss"] == best][-1:]
            }
    return found


def is_closed(members, kept):
    """Tell whether what is kept has everything that it needs."""
    by_name = {m.entry.name: m for m in members}
    children = {}
    for name in kept:
        member = by_name[name]
        link = member.entry.parent
        step = [m for m in members if same_step(m.entry.name, name)]
        if max(m.entry.name.revision for m in step) != name.revision:
            answer = max(step, key=lambda m: m.entry.name.revision).entry.name
            if answer not in kept:
                return False
        if any(m.entry.name not in kept for m in members if m.entry.name.exp_hash in link.via):
            return False
        parent = named(members, link)
        if parent is not None:
            line = member.derived_from or member.entry.digest
            lines = children.setdefault(parent, set())
            lines.add((name.exp_hash == parent.exp_hash, line))
    forks = (p for p, lines in children.items() if len(lines) > 1 or not min(lines)[0])
    return all(parent in kept for parent in forks)


def same_step(one, other):
    return (one.exp_hash, one.step) == (other.exp_hash, other.step)


def named(members, link):
    """Return the checkpoint that a link is about: what was thinned from it, itself, or the answer."""
    found = [
        m
        for m in members
        if (m.entry.name.exp_hash, m.entry.name.step) == (link.exp_hash, link.step)
    ]
    found.sort(key=lambda m: m.entry.name.revision, reverse=True)
    heirs = [m for m in found if m.derived_from == link.manifest_digest]
    exact = [m for m in found if m.entry.name.revision == link.revision]
    chosen = [*heirs, *exact, *found]
    return chosen[0].entry.name if chosen else None


def least_bytes(members, retention, bucket):
    """Return how few bytes a budget could be left with: over every set that may stay."""
    must = stays_anyway(members, retention)
    optional = [m for m in members if m.entry.name not in must]
    best = math.inf
    for size in range(len(optional) + 1):
        for some in itertools.combinations(optional, size):
            kept = must | {m.entry.name for m in some}
            if is_closed(members, kept):
                best = min(best, thin_bytes(members, kept, bucket))
    return best


def thin_bytes(members, kept, bucket):
    """Return the bytes of a set, thinned as far as that is allowed."""
    newest = {group[-1].entry.name for group in groups(members, "experiment")}
    left = []
    for member in members:
        name = member.entry.name
        if name not in kept or bucket not in ("", name.exp_hash):
            continue
        answers = not any(
            same_step(m.entry.name, name) and m.entry.name.revision > name.revision for m in members
        )
        fixed = name in newest or member.is_pinned or member.untouchable or member.derived_from
        if fixed or not answers or damaged_above(name):
            left.append(member)
        else:
            left.append(replace(member, files=tuple(f for f in member.files if not f.is_training)))
    return total_bytes(left)


DAMAGED = []


def damaged_above(name):
    return any(same_step(d, name) and d.revision > name.revision for d in DAMAGED)


# ---------------------------------------------------------------- the properties
def check(numbers, rule, *, by_force):
    candidates, retention = history_of(numbers), retention_of(rule)
    readable = [c for c in candidates if c.damaged is None]
    DAMAGED[:] = [c.entry.name for c in candidates if c.damaged is not None]
    plan = plan_retention(candidates, retention)
    actions = {decision.name: decision.action for decision in plan.decisions}
    assert actions.keys() == {c.entry.name for c in candidates}
    assert {n for n, action in actions.items() if action == LEAVE} == set(DAMAGED)
    kept = {n for n, action in actions.items() if action in (KEEP, THIN)}
    check_protected(readable, retention, kept, actions)
    check_bytes(candidates, plan)
    check_budget(readable, retention, plan, by_force=by_force)
    if retention.budget is None:
        check_policies(readable, retention, kept)
    again = plan_retention(counted(carried_out(candidates, plan)), retention)
    assert (again.of(DROP), again.of(THIN)) == ((), ())


def check_protected(readable, retention, kept, actions):
    assert stays_anyway(readable, retention) <= kept
    assert is_closed(readable, kept)
    whole = {m.entry.name for m in readable if m.is_pinned or m.untouchable}
    whole |= {group[-1].entry.name for group in groups(readable, "experiment")}
    assert all(actions[name] == KEEP for name in whole)


def check_bytes(candidates, plan):
    left = carried_out(candidates, plan)
    assert plan.freed_bytes == total_bytes(candidates) - total_bytes(left)
    assert plan.kept_bytes == total_bytes([c for c in left if c.damaged is None])


def check_budget(readable, retention, plan, *, by_force):
    budget = retention.budget
    if budget is None:
        assert plan.problems == ()
        return
    left = carried_out(readable, plan)
    hashes = {m.entry.name.exp_hash for m in readable} if budget.scope == "experiment" else {""}
    beyond = 0
    for bucket in hashes:
        here = [m for m in left if bucket in ("", m.entry.name.exp_hash)]
        if total_bytes(here) > budget.max_bytes:
            beyond += 1
            if by_force:
                assert least_bytes(readable, retention, bucket) > budget.max_bytes
    assert len(plan.problems) == beyond


def check_policies(readable, retention, kept):
    origins = {m.derived_from for m in readable} - {None}
    for policy in (
        retention.keep.policies if hasattr(retention.keep, "policies") else [retention.keep]
    ):
        for group in groups(readable, policy.scope):
            shown = [m for m in group if m.entry.digest not in origins]
            reasons = policy.choose([m.entry for m in shown])
            assert {m.entry.name for m, r in zip(shown, reasons, strict=True) if r} <= kept


NUMBERS = st.lists(st.integers(0, 2**48), max_size=9)
FEW = st.lists(st.integers(0, 2**48), max_size=6)
RULES = st.integers(0, 2**40)
QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@settings(QUIET, max_examples=1500)
@given(NUMBERS, RULES)
def test_what_must_stay_stays_and_a_second_plan_does_nothing(numbers, rule):
    check(numbers, rule, by_force=False)


@pytest.mark.slow
@settings(QUIET, max_examples=500)
@given(FEW, RULES)
def test_a_budget_is_met_whenever_any_set_that_may_stay_meets_it(numbers, rule):
    check(numbers, rule, by_force=True)


@pytest.mark.crash_long
@settings(QUIET, max_examples=10_000)
@given(NUMBERS, RULES)
def test_ten_thousand_histories_lose_nothing(numbers, rule):
    check(numbers, rule, by_force=len(numbers) <= 6)
