"""State of optimizers: compared with the live object, then copied into it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from weightslab.engine.errors import StateMismatchError
from weightslab.engine.training.state import (
    capture_optimizer,
    parameter_names,
    plan_optimizer_restore,
)


def train(optimizer_class=torch.optim.AdamW, *, width=4, steps=2, seed=0, **options):
    """A model and an optimizer that has made some steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def moments(optimizer):
    return [t.clone() for state in optimizer.state.values() for t in state.values()]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {}),
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
        (torch.optim.Adafactor, {}),
        (torch.optim.Rprop, {}),
    ],
)
def test_state_comes_back(kind, options):
    _, source = train(kind, **options)
    _, live = train(kind, seed=1, steps=1, **options)
    live.param_groups[0]["lr"] = 5.0

    plan_optimizer_restore(live, capture_optimizer(source)).apply()

    assert all(map(torch.equal, moments(live), moments(source)))
    assert live.param_groups[0]["lr"] == 0.1


def test_state_goes_into_an_optimizer_that_has_made_no_step():
    _, source = train()
    _, live = train(steps=0)

    plan_optimizer_restore(live, capture_optimizer(source)).apply()

    assert len(moments(live)) == 12


def test_captured_tensors_are_the_live_ones_and_restored_ones_are_copies():
    model, source = train()
    captured = capture_optimizer(source)
    stored = captured["state"]["state"][0]["exp_avg"]
    assert stored.data_ptr() == source.state[model[0].weight]["exp_avg"].data_ptr()

    other, live = train(seed=1)
    plan_optimizer_restore(live, captured).apply()
    assert live.state[other[0].weight]["exp_avg"].data_ptr() != stored.data_ptr()


def test_restored_optimizer_does_not_change_the_stored_state():
    _, source = train()
    captured = capture_optimizer(source)
    before = captured["state"]["state"][0]["exp_avg"].clone()
    model, live = train(seed=1)
    plan_optimizer_restore(live, captured).apply()

    model(torch.ones(5, 3)).sum().backward()
    live.step()

    assert torch.equal(captured["state"]["state"][0]["exp_avg"], before)


def refused(live, captured, text, names=None):
    before = moments(live)
    with pytest.raises(StateMismatchError, match=text) as caught:
        plan_optimizer_restore(live, captured, names)
    assert all(map(torch.equal, moments(live), before))
    return caught.value


def test_other_class_is_refused():
    captured = capture_optimizer(train(torch.optim.SGD, momentum=0.9)[1])

    refused(train()[1], captured, r"state of torch\.optim\.sgd\.SGD, not of torch.*AdamW; make the")


def test_class_that_its_library_moved_is_the_same():
    captured = capture_optimizer(train()[1]) | {"class": "torch.optim._new.place.AdamW"}

    plan_optimizer_restore(train(seed=1)[1], captured).apply()


def test_other_groups_are_refused():
    model, _ = train()
    live = torch.optim.AdamW([{"params": layer.parameters()} for layer in model])

    refused(live, capture_optimizer(train()[1]), r"1 parameter groups of \[4\] .* 2 of \[2, 2\]")


def test_other_shapes_are_refused_by_parameter():
    error = refused(
        train(width=5)[1], capture_optimizer(train()[1]), r"exp_avg of parameter 0 does not fit"
    )

    assert error.shape_changes == {"0.exp_avg": "[4, 3] -> [5, 3]"}


def test_parameters_in_another_order_are_refused_by_name():
    model, source = train()
    captured = capture_optimizer(source, parameter_names([model]))
    assert captured["names"] == [["0.weight", "0.bias", "1.weight", "1.bias"]]

    other, _ = train(seed=1)
    live = torch.optim.AdamW(reversed(list(other.parameters())))
    refused(
        live, captured, r"has 1\.bias where the checkpoint has 0\.weight", parameter_names([other])
    )


@pytest.mark.parametrize(
    "captured",
    [
        None,
        {},
        {"class": "torch.optim.adamw.AdamW", "names": [], "state": {}},
        {"class": "torch.optim.adamw.AdamW", "names": [], "state": {"param_groups": [3]}},
        {"class": "torch.optim.adamw.AdamW", "names": [], "state": None},
    ],
)
def test_state_of_the_wrong_form_is_refused(captured):
    refused(train()[1], captured, "is not in order")


def test_state_beside_parameters_of_another_dtype_keeps_its_own():
    """torch converts it to the dtype of the parameter, and bits of `mu_product` would be lost."""

    def make():
        torch.manual_seed(0)
        model = nn.Linear(3, 2, dtype=torch.bfloat16)
        optimizer = torch.optim.NAdam(model.parameters(), lr=0.1)
        for _ in range(3):
            model(torch.ones(4, 3, dtype=torch.bfloat16)).square().sum().backward()
            optimizer.step()
        return optimizer

    source, live = make(), make()
    plan_optimizer_restore(live, capture_optimizer(source)).apply()
    assert all(map(torch.equal, moments(live), moments(source)))
    assert {str(t.dtype) for t in moments(live)} == {"torch.bfloat16", "torch.float32"}

    plan_optimizer_restore(live, capture_optimizer(source), exact=False).apply()
    assert all(map(torch.equal, moments(live), moments(source)))  # single numbers keep theirs


def test_learning_rate_that_is_a_tensor_comes_back():
    source, live = train()[1], train(seed=1)[1]
    source.param_groups[0]["lr"] = torch.tensor(0.25)
    live.param_groups[0]["lr"] = mine = torch.tensor(7.0)

    plan_optimizer_restore(live, capture_optimizer(source)).apply()

    assert live.param_groups[0]["lr"].item() == 0.25
    assert mine.item() == 7.0  # a tensor of the user is not written to
