"""Schedulers, scalers and whatever has `state_dict`: handed its state as a copy, if that fits."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from weightslab.engine.errors import CheckpointError, NotStorableError, StateMismatchError
from weightslab.engine.tensors.tree import join, split
from weightslab.engine.training.state import capture_stateful, plan_stateful_restore


def optimizer(groups=1, **options):
    options = {"lr": 0.1, "momentum": 0.9} | options
    return torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))]} for _ in range(groups)], **options
    )


class Decay:
    """A callable object, whose attributes torch saves."""

    def __init__(self, factor):
        self.factor = factor
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return self.factor**epoch


class Warmup(lrs.LRScheduler):
    """A scheduler of a user: keeps a function in an attribute."""

    def __init__(self, optimizer, shape):
        self.shape = shape
        super().__init__(optimizer)

    def get_lr(self):
        return [base * self.shape(self.last_epoch) for base in self.base_lrs]


SCHEDULERS = {
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda epoch: 0.9**epoch),
    "LambdaLR(object)": lambda o: lrs.LambdaLR(o, Decay(0.8)),
    "LambdaLR(partial)": lambda o: lrs.LambdaLR(o, functools.partial(math.pow, 0.7)),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: lrs.StepLR(o, 2),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [2, 5, 5]),
    "ConstantLR": lambda o: lrs.ConstantLR(o, total_iters=3),
    "LinearLR": lambda o: lrs.LinearLR(o, total_iters=4),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 5),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 6, power=2.0),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3, 2),
    "CyclicLR": lambda o: lrs.CyclicLR(o, 0.1, 0.5, step_size_up=3),
    "CyclicLR(function)": lambda o: lrs.CyclicLR(o, 0.1, 0.5, 3, scale_fn=lambda x: 0.5**x),
    "CyclicLR(object)": lambda o: lrs.CyclicLR(o, 0.1, 0.5, 3, scale_fn=Decay(0.9)),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.5, total_steps=12),
    "OneCycleLR(linear)": lambda o: lrs.OneCycleLR(
        o, 0.5, total_steps=12, anneal_strategy="linear", three_phase=True
    ),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1, cooldown=1),
    "SWALR": lambda o: SWALR(o, 0.05, anneal_epochs=3),
    "SequentialLR": lambda o: lrs.SequentialLR(
        o, [lrs.LinearLR(o, total_iters=3), lrs.LambdaLR(o, lambda epoch: 0.9**epoch)], [3]
    ),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler(
        [lrs.ConstantLR(o, total_iters=2), lrs.ExponentialLR(o, 0.9)]
    ),
    "nested": lambda o: lrs.ChainedScheduler(
        [
            lrs.SequentialLR(o, [lrs.StepLR(o, 1), lrs.LambdaLR(o, lambda epoch: 0.7)], [2]),
            lrs.ExponentialLR(o, 0.9),
        ]
    ),
    "Warmup": lambda o: Warmup(o, lambda epoch: min(1.0, (epoch + 1) / 5)),
}


def run(source, steps, start=0):
    """Step optimizer and scheduler; return the rates that came of it, in full."""
    rates = []
    for step in range(start, start + steps):
        source.optimizer.step()
        if isinstance(source, lrs.ReduceLROnPlateau):
            source.step([3.0, 2.0, 2.5, 2.5, 2.5, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5][step])
        else:
            source.step()
        group = source.optimizer.param_groups[0]
        rates.append((group["lr"].hex(), group["momentum"].hex(), source.get_last_lr()))
    return rates


def through_a_file(tree):
    tensors, skeleton = split(tree)
    return join(skeleton, tensors)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("stepped", [0, 7])
@pytest.mark.parametrize("before", [0, 1, 4])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_rates_go_on_where_they_were(kind, before, stepped):
    source, live = (SCHEDULERS[kind](optimizer()) for _ in range(2))
    run(source, before)
    run(live, stepped)
    tree, groups = through_a_file(capture_stateful(source)), source.optimizer.state_dict()
    expected = run(source, 6, start=before)

    plan_stateful_restore(live, tree).apply()
    live.optimizer.load_state_dict(groups)

    assert run(live, 6, start=before) == expected


def test_functions_are_code_and_not_in_the_state():
    assert "shape" not in capture_stateful(SCHEDULERS["Warmup"](optimizer()))["state"]


def test_state_of_a_callable_object_comes_back():
    source, live = (lrs.LambdaLR(optimizer(), Decay(f)) for f in (0.5, 0.9))
    run(source, 2)
    plan_stateful_restore(live, through_a_file(capture_stateful(source))).apply()
    assert (live.lr_lambdas[0].factor, live.lr_lambdas[0].calls) == (0.5, 3)


def refused(live, saved, text):
    before = live.state_dict()
    with pytest.raises(StateMismatchError, match=text):
        plan_stateful_restore(live, saved)
    assert live.state_dict() == before


def test_scheduler_over_other_groups_is_refused():
    saved = capture_stateful(lrs.StepLR(optimizer(2), 1))
    refused(lrs.StepLR(optimizer(1), 1), saved, "over 2 parameter groups, the live one has 1")


def test_scheduler_of_other_schedulers_is_refused():
    saved = capture_stateful(SCHEDULERS["SequentialLR"](optimizer()))
    one = optimizer()
    live = lrs.SequentialLR(one, [lrs.StepLR(one, 1), lrs.ExponentialLR(one, 0.9)], [3])
    refused(live, saved, "state of .*LinearLR, not of .*StepLR")
    chained = lrs.ChainedScheduler([lrs.StepLR(one, 1)])
    two = capture_stateful(SCHEDULERS["ChainedScheduler"](optimizer()))
    refused(chained, two, "ChainedScheduler of 2 schedulers, the live one has 1")


def test_function_in_the_place_of_an_object_is_refused():
    saved = capture_stateful(SCHEDULERS["LambdaLR(object)"](optimizer()))
    live = SCHEDULERS["LambdaLR"](optimizer())
    refused(live, saved, r"lr_lambdas of .*: \['object'\] in the checkpoint, \['function'\] in")
    saved = capture_stateful(SCHEDULERS["CyclicLR(function)"](optimizer()))
    refused(SCHEDULERS["CyclicLR(object)"](optimizer()), saved, "_scale_fn_custom of")


def test_scheduler_that_keeps_what_has_no_form_is_an_error_with_its_path():
    source = SCHEDULERS["Warmup"](optimizer())
    source.inner = SCHEDULERS["StepLR"](optimizer())
    with pytest.raises(NotStorableError, match=r"state\.inner is a .*StepLR, which has no stored"):
        split(capture_stateful(source))


def test_state_dict_that_fails_is_told_with_its_class():
    source = lrs.LambdaLR(optimizer(), math.sqrt)  # a built-in function has no __dict__
    with pytest.raises(NotStorableError, match=r"state_dict\(\) of a .*LambdaLR failed: Attribute"):
        capture_stateful(source)


@pytest.mark.parametrize("state", [None, 3, {"_schedulers": 4}, {"lr_lambdas": {}}])
def test_scheduler_state_of_the_wrong_form_is_refused(state):
    saved = {"class": "torch.optim.lr_scheduler.SequentialLR", "state": state, "scheduler": 7}
    refused(SCHEDULERS["SequentialLR"](optimizer()), saved, "not in order")


# ---------------------------------------------------------------- gradient scalers
def scaler(*, enabled=True):
    return torch.amp.GradScaler("cpu", enabled=enabled, init_scale=8.0, growth_interval=2)


def test_scaler_goes_on_where_it_was():
    source, live = scaler(), scaler()
    parameter = nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([parameter], lr=0.1)
    for value in (1.0, 1.0, float("inf"), 1.0):
        sgd.zero_grad()
        source.scale(parameter.sum() * value).backward()
        source.step(sgd)
        source.update()
    plan_stateful_restore(live, through_a_file(capture_stateful(source))).apply()
    assert live.state_dict() == source.state_dict()
    assert (live.get_scale(), live._get_growth_tracker()) == (8.0, 1)


@pytest.mark.parametrize(("saved", "live"), [(True, False), (False, True)])
def test_scaler_that_scales_and_one_that_does_not_are_not_mixed(saved, live):
    with pytest.raises(StateMismatchError, match=r"(enabled|disabled) GradScaler, the live one is"):
        plan_stateful_restore(scaler(enabled=live), capture_stateful(scaler(enabled=saved)))


# ---------------------------------------------------------------- objects of users
class Sampler:
    def __init__(self, length):
        self.length, self.position = length, 0

    def state_dict(self):
        return {"length": self.length, "position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]

    def check_state_dict(self, state):
        if state["length"] != self.length:
            raise ValueError(f"it has {self.length} samples, not {state['length']}")
        state.clear()  # what it is shown is not what it is given


def test_object_that_checks_a_state_is_asked_before_anything_changes():
    source, live = Sampler(9), Sampler(9)
    source.position = 4
    plan_stateful_restore(live, capture_stateful(source)).apply()
    assert live.position == 4
    with pytest.raises(
        StateMismatchError, match=r"does not fit the .*Sampler: it has 8 samples, not"
    ):
        plan_stateful_restore(Sampler(8), capture_stateful(source))


def test_scheduler_comes_back():
    source = lrs.StepLR(optimizer(), step_size=2)
    run(source, 3)
    live = lrs.StepLR(optimizer(), step_size=9)

    plan_stateful_restore(live, capture_stateful(source)).apply()

    assert (live.last_epoch, live.step_size) == (3, 2)


def test_scheduler_of_another_class_is_refused():
    captured = capture_stateful(lrs.StepLR(optimizer(), step_size=2))
    live = lrs.ExponentialLR(optimizer(), gamma=0.9)

    with pytest.raises(
        StateMismatchError, match=r"StepLR, not of .*ExponentialLR; .*leave its state"
    ):
        plan_stateful_restore(live, captured)


def test_object_without_state_is_refused():
    with pytest.raises(NotStorableError, match=r"no state_dict\(\)"):
        capture_stateful(object())
    with pytest.raises(StateMismatchError, match=r"no load_state_dict\(\)"):
        plan_stateful_restore(object(), {"class": "builtins.object", "state": {}})


def test_object_that_fails_says_that_it_is_in_between():
    class Failing:
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            raise KeyError("gone")

    plan = plan_stateful_restore(Failing(), capture_stateful(Failing()))
    with pytest.raises(CheckpointError, match=r"Failing failed while it took its state.*KeyError"):
        plan.apply()


def test_one_tensor_in_two_places_stays_one():
    class Holder:
        def __init__(self):
            self.held = None

        def state_dict(self):
            return {"a": self.held, "b": [self.held]}

        def load_state_dict(self, state):
            self.held = state

    source, live = Holder(), Holder()
    source.held = torch.ones(1)
    plan_stateful_restore(live, capture_stateful(source)).apply()

    assert live.held["a"] is live.held["b"][0] is not source.held
