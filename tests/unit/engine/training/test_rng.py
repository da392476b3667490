"""The random state of the process: all global generators, or none."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from weightslab.engine.errors import StateMismatchError
from weightslab.engine.tensors.tree import join, split
from weightslab.engine.training import rng
from weightslab.engine.training.rng import capture_random, plan_random_restore


@pytest.fixture(autouse=True)
def untouched():
    """Leave the random state of the tests as it was."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


def draw():
    return random.random(), random.gauss(0, 1), np.random.normal(), torch.randn(3).tolist()


@pytest.mark.parametrize("draws", range(3))
def test_numbers_of_all_libraries_go_on_where_they_were(draws):
    for _ in range(draws):  # an odd number leaves one normal number kept in NumPy and in Python
        draw()
    tensors, skeleton = split(capture_random())
    expected = [draw() for _ in range(4)]

    plan_random_restore(join(skeleton, tensors)).apply()

    assert [draw() for _ in range(4)] == expected


def test_all_words_are_one_tensor():
    tensors, _ = split(capture_random())
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {"bytes": (10052,)}


def test_neither_capture_nor_plan_draws_or_changes_anything():
    tree = capture_random()
    other = draw()
    before = capture_random()
    plan_random_restore(tree)
    after = capture_random()
    assert torch.equal(before.pop("bytes"), after.pop("bytes"))
    assert before == after
    plan_random_restore(tree).apply()
    assert draw() == other


def test_cuda_is_not_begun_by_asking():
    assert torch.cuda.is_initialized() == ("cuda" in capture_random())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("numpy"), "not in order"),
        (lambda t: t.pop("bytes"), "not in order"),
        (lambda t: t.update(bytes=t["bytes"][:100]), "bytes 0 to 2500 are not there"),
        (lambda t: t.update(bytes="no"), "not in order"),
        (lambda t: t.update(python=3), "random state of python: .* not in order"),
        (lambda t: t["numpy"].update(bit_generator="PCG64"), "numpy: .*'PCG64', not MT19937"),
        (lambda t: t["torch"]["words"].update(start=0), "random state of torch"),
        (lambda t: t.update(cuda=4), "cuda is not in order"),
    ],
)
def test_spoilt_state_is_refused_and_none_is_changed(change, text):
    tree = capture_random()
    change(tree)
    before = capture_random()["bytes"]
    with pytest.raises(StateMismatchError, match=text):
        plan_random_restore(tree)
    assert torch.equal(capture_random()["bytes"], before)


def test_none_is_refused():
    with pytest.raises(StateMismatchError, match="not in order"):
        plan_random_restore(None)


# ---------------------------------------------------------------- devices
@pytest.fixture
def devices(monkeypatch):
    """Generators that stand for those of three devices; the tests may run on a machine without."""
    found = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", tuple(found))
    monkeypatch.setattr(rng, "_cuda_generators", lambda: tuple(found))
    return found


def test_each_device_goes_on_where_it_was(devices):
    tree = capture_random()
    expected = [torch.randn(2, generator=each).tolist() for each in devices]
    plan = plan_random_restore(tree)
    plan.apply()
    assert plan.loaded == ("python", "numpy", "torch", "cuda:0", "cuda:1", "cuda:2")
    assert [torch.randn(2, generator=each).tolist() for each in devices] == expected


def test_device_that_is_gone_is_left_out_and_named(devices, monkeypatch):
    tree = capture_random()
    monkeypatch.setattr(rng, "_cuda_generators", lambda: tuple(devices[:1]))
    plan = plan_random_restore(tree)
    assert plan.unexpected == ("cuda:1", "cuda:2")
    assert plan.missing == ()


def test_device_that_is_new_keeps_its_state_and_is_named(devices, monkeypatch):
    monkeypatch.setattr(torch.cuda, "default_generators", tuple(devices[:2]))
    tree = capture_random()
    first = torch.randn(2, generator=devices[2].clone_state()).tolist()
    plan = plan_random_restore(tree)
    plan.apply()
    assert plan.missing == ("cuda:2",)
    assert torch.randn(2, generator=devices[2]).tolist() == first


def test_without_cuda_its_states_are_left_out(devices, monkeypatch):
    tree = capture_random()
    monkeypatch.undo()
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    plan = plan_random_restore(tree)
    assert plan.unexpected == ("cuda:0", "cuda:1", "cuda:2")
    plan.apply()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_numbers_go_on_where_they_were():
    torch.randn(3, device="cuda")
    tree = capture_random()
    expected = torch.randn(5, device="cuda").tolist()
    plan_random_restore(tree).apply()
    assert torch.randn(5, device="cuda").tolist() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_spoilt_cuda_state_is_refused_and_nothing_changes():
    torch.cuda.init()
    tree = capture_random()
    tree["cuda"][0]["words"]["end"] -= 1
    before = torch.cuda.get_rng_state()
    with pytest.raises(StateMismatchError, match="random state of cuda:0"):
        plan_random_restore(tree)
    assert torch.equal(torch.cuda.get_rng_state(), before)
