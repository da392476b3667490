"""The trail: the first steps after a checkpoint, as they were told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from weightslab.engine.errors import FormatError
from weightslab.engine.saving.trail import StepRecord, Trail, trail_from_tree

H = "0123456789abcdef"


def steps_of(trail, exp_hash=H, step=None):
    return [record.step for record in trail.records(exp_hash, step)]


def test_the_first_steps_are_kept_and_no_more():
    trail = Trail(limit=3)
    for step in range(1, 6):
        if trail.is_open:
            trail.note(H, step, None, None)
    assert steps_of(trail) == [1, 2, 3]
    assert steps_of(trail, step=2) == [1, 2]


def test_after_a_save_the_trail_stays_until_the_next_step():
    trail = Trail(limit=2)
    trail.note(H, 1, None, None)
    trail.note(H, 2, None, None)
    trail.note_saved()
    assert steps_of(trail) == [1, 2]  # the same step may be saved again
    assert trail.is_open
    trail.note(H, 3, None, None)
    assert steps_of(trail) == [3]


def test_a_rewound_loop_and_another_experiment_begin_anew():
    trail = Trail()
    trail.note(H, 5, None, None)
    trail.note(H, 4, None, None)
    assert steps_of(trail) == [4]
    trail.note("f" * 16, 6, None, None)
    assert steps_of(trail) == []
    assert steps_of(trail, "f" * 16) == [6]


def test_a_loaded_trail_is_saved_again_and_gives_way_to_the_next_step():
    trail = Trail()
    trail.begin([StepRecord(step=7)], H)
    assert steps_of(trail) == [7]
    trail.note(H, 8, None, None)
    assert steps_of(trail) == [8]


def test_numbers_of_all_kinds_are_kept_as_they_were_told():
    running = torch.tensor(1.0)
    told = {"a": running, "b": np.float32(0.5), "c": 3, "d": math.nan, "e": "text", "f": True}
    trail = Trail()
    trail.note(H, 1, told, None)
    running += 1
    told["c"] = 4
    (record,) = trail.records(H)
    assert record.metrics.pop("d") != record.metrics.get("d")
    assert record.metrics == {"a": 1.0, "b": 0.5, "c": 3}


def test_batches_are_told_apart_by_their_uids_in_order():
    def record_of(*batches):
        trail = Trail()
        trail.note(H, 1, None, list(batches))
        return trail.records(H)[0]

    one = record_of((1, 2, 3, 4, 5))
    assert one.uids == record_of([1, 2, 3, 4, 5]).uids
    assert one.shown == "[1, 2, 3, 4, ...]"
    others = [(2, 1, 3, 4, 5), (1, 2, 3, 4), ("1", 2, 3, 4, 5)]
    assert len({one.uids, *(record_of(o).uids for o in others)}) == 4
    assert record_of((1, 2), (3,)).uids != record_of((1,), (2, 3)).uids


def test_a_record_survives_being_saved():
    record = StepRecord(step=3, metrics={"loss": 0.1}, uids="xxh3-128:00")
    assert trail_from_tree({"steps": [record.to_tree()]}) == [record]
    assert trail_from_tree(None) == []


@pytest.mark.parametrize(
    "tree",
    [
        3,
        {},
        {"steps": {}},
        {"steps": [3]},
        {"steps": [{"step": 1, "metrics": {}}]},
        {"steps": [{"step": "1", "metrics": {}, "uids": None}]},
        {"steps": [{"step": 1, "metrics": [], "uids": None}]},
        {"steps": [{"step": 1, "metrics": {}, "uids": 5}]},
        {"steps": [{"step": 1, "metrics": {"a": "b"}, "uids": None}]},
    ],
)
def test_what_is_no_trail_is_refused(tree):
    with pytest.raises(FormatError):
        trail_from_tree(tree)
