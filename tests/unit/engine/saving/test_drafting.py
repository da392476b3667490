"""Drafting and writing: what goes into a checkpoint, and what is refused before anything is."""

from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from weightslab.engine.errors import StateMismatchError, StorageError
from weightslab.engine.saving.drafting import check_metrics, check_step
from weightslab.engine.saving.drift import check_digest, check_outline
from weightslab.engine.saving.snapshot import take_snapshot
from weightslab.engine.saving.writer import library_versions, record_event
from weightslab.engine.training.state import ModelState


@pytest.mark.parametrize(("step", "number"), [(0, 0), (np.int32(7), 7), (10**18 - 1, 10**18 - 1)])
def test_integers_in_range_are_steps(step, number):
    found = check_step(step, None)
    assert (found, type(found)) == (number, int)


def test_step_of_the_model_is_checked_like_any_other():
    assert check_step(None, SimpleNamespace(current_step=3)) == 3
    with pytest.raises(TypeError, match=r"step is an int >= 0, not 1\.5 \(float\)"):
        check_step(None, SimpleNamespace(current_step=1.5))
    with pytest.raises(ValueError, match="has no current_step"):
        check_step(None, SimpleNamespace(current_step=None))


def test_numbers_of_every_kind_become_int_or_float():
    found = check_metrics(
        {"a": np.int64(3), "b": torch.tensor(0.5), "c": Fraction(1, 4), "d": np.float16(2), "e": 7}
    )
    assert found == {"a": 3, "b": 0.5, "c": 0.25, "d": 2.0, "e": 7}
    assert [type(v) for v in found.values()] == [int, float, float, float, int]
    assert check_metrics(None) == {}


@pytest.mark.parametrize("value", [Decimal("0.5"), "x", torch.tensor(True), b"1", 1j])
def test_what_is_no_real_number_is_named(value):
    with pytest.raises(TypeError, match="metric 'loss' is"):
        check_metrics({"loss": value})


def test_drift_names_what_changed_what_is_gone_and_what_is_new():
    with pytest.raises(StateMismatchError) as caught:
        check_outline({"a": "1", "b": "2"}, {"a": "3", "c": "4"}, exp_hash="h")
    error = caught.value
    assert "a: 1 -> 3; b is gone; c is new; call update_experiment_hash" in str(error)
    assert (error.missing, error.unexpected) == (("b",), ("c",))
    assert error.shape_changes == {"a": "1 -> 3"}


def test_drift_of_many_modules_names_three():
    with pytest.raises(StateMismatchError, match=r"0 is gone; 1 is gone; 2 is gone and 2 more"):
        check_outline(dict.fromkeys("01234", "x"), {}, exp_hash="h")


def test_digest_of_a_component_that_was_not_given_says_nothing():
    check_digest(None, "a", what="model", exp_hash="h")
    check_digest("a", None, what="model", exp_hash="h")
    check_digest("a", "a", what="model", exp_hash="h")
    with pytest.raises(StateMismatchError, match="the model is not the one of experiment h"):
        check_digest("a", "b", what="model", exp_hash="h")


def test_snapshot_without_training_has_no_training_part():
    snapshot = take_snapshot({"model": ModelState(tensors={"w": torch.zeros(1)})}, None)
    assert (list(snapshot.images), snapshot.state) == (["model"], {"model": {}})


def test_snapshot_names_tied_tensors_with_their_part():
    weight = torch.ones(2)
    state = ModelState(tensors={"a": weight, "b": weight})
    assert take_snapshot({"model.g": state}, None).aliases == {"model.g/b": "model.g/a"}


def test_wrapper_state_is_training_state():
    state = ModelState(wrapper_state={"n_averaged": torch.tensor(3)})
    assert "training" not in take_snapshot({"model": state}, None).images
    assert "training" in take_snapshot({"model": state}, {}).images


def test_event_that_cannot_be_written_is_a_warning(caplog):
    def fail(record):
        raise StorageError("no disk")

    from datetime import datetime, timezone

    place = SimpleNamespace(
        clock=lambda: datetime(2026, 1, 1, tzinfo=timezone.utc),
        journal=SimpleNamespace(append=fail),
    )
    record_event(place, "checkpoint_committed", step=1)
    assert "the event checkpoint_committed is not in the journal: no disk" in caplog.text


def test_versions_of_the_libraries_are_known():
    assert set(library_versions()) == {"python", "weightslab", "torch", "numpy", "safetensors"}
