"""A resumed training is the uninterrupted one, bit for bit: in every pair of circumstances."""

from __future__ import annotations

import contextlib

import pytest
import torch
from support.courses import DISCARDED, FACTORS, Course
from support.pairwise import pairs_of, pairwise, several

CASES = several(FACTORS, 120)
WITH_WORKERS = pairwise({**FACTORS, "workers": [1, 2]}, only="workers")
NUM_QUICK = 30


def name_of(case):
    return "-".join(str(value) for value in case.values())


def marked(cases, quick):
    slow = pytest.mark.slow
    return [
        pytest.param(case, id=name_of(case), marks=[] if number < quick else [slow])
        for number, case in enumerate(cases)
    ]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch_size_after(case):
    return 4 if case["batch"] == "same" else 6


def uninterrupted(case):
    """Train in one go; what changes at the stop changes in the process."""
    course = Course(case)
    with contextlib.closing(course.steps()) as steps:
        course.run_to_the_stop(steps)
        before = len(course.told)
        if case["discard"] == "at the stop":
            course.samples.discard(DISCARDED)
        if case["batch"] == "same":
            course.run_on(steps)
    if case["batch"] == "other":
        course.set_batch_size(6)
        with contextlib.closing(course.steps()) as steps:
            course.run_on(steps)
    return course.told[before:], course.state()


def interrupted(case, path):
    """Train to the stop, and save."""
    course = Course(case)
    with course.manage(path) as manager, contextlib.closing(course.steps()) as steps:
        course.run_to_the_stop(steps)
        course.identify(manager)  # samples may have been discarded
        manager.save_model_checkpoint(
            course.model, step=course.num_steps, optimizer=course.optimizer
        )
        return course.num_steps, course.sampler.epoch, course.sampler.position


def resumed(case, path):
    """Build everything anew from other random numbers, resume, and go on."""
    is_changed = case["discard"] == "at the stop"
    course = Course(
        case,
        seed=99,
        discarded=DISCARDED if case["discard"] in ("before", "at the stop") else (),
        batch_size=batch_size_after(case),
        accept=("samples",) * is_changed,
    )
    with course.manage(path) as manager:
        on_change = "continue" if is_changed else "fresh"
        found = manager.resume(course.model, optimizer=course.optimizer, on_change=on_change)
        with contextlib.closing(course.steps()) as steps:
            course.run_on(steps)
    return found, course.told, course.state()


@pytest.mark.parametrize("case", marked(CASES, NUM_QUICK) + marked(WITH_WORKERS, 0))
def test_resuming_is_the_same_as_not_stopping(case, tmp_path):
    told, state = uninterrupted(case)
    assert len(told) == 8

    stop, epoch, position = interrupted(case, tmp_path)
    found, told_after, state_after = resumed(case, tmp_path)

    assert found.resumed
    assert found.step == stop
    if case["discard"] != "at the stop":  # then what is left of an epoch may have been discarded
        assert (found.epoch, found.position) == (epoch, position)
    assert told_after == told
    assert state_after == state


def test_every_two_circumstances_meet():
    factors = {**FACTORS, "workers": [0, 1, 2]}
    rows = [{**case, "workers": 0} for case in CASES] + WITH_WORKERS
    met = set().union(*map(pairs_of, rows))
    names = list(factors)
    assert len(CASES) >= 120
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            for one in factors[first]:
                for other in factors[second]:
                    assert ((first, one), (second, other)) in met
