"""Watching optimizers: what came after the last complete step."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from weightslab.engine.saving.step_watch import StepWatch


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def test_steps_after_the_mark_are_told():
    watch, one = StepWatch(), optimizer()
    watch.watch([one])
    one.step()
    watch.mark()
    assert watch.find_change() is None
    one.step()
    assert watch.find_change() == "1 optimizer step(s) came after it without a manager.step()"
    watch.mark()
    assert watch.find_change() is None


def test_a_step_that_was_interrupted_is_told():
    watch, one = StepWatch(), optimizer()
    watch.watch([one])

    def closure():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.step(closure)
    assert "half old and half new" in watch.find_change()


def test_an_optimizer_is_watched_once_weakly_and_not_after_close():
    watch, one = StepWatch(), optimizer()
    watch.watch([one, one])
    watch.watch([one])
    one.step()
    assert watch.find_change().startswith("1 ")
    watch.mark()
    watch.close()
    one.step()
    assert watch.find_change() is None
    alive = weakref.ref(one)
    watch.watch([one])
    del one
    gc.collect()
    assert alive() is None


def test_objects_without_hooks_are_left_alone():
    StepWatch().watch([object()])
