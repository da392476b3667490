"""Tracked objects: each is captured as what it is, and told by its name when it does not fit."""

from __future__ import annotations

import random

import pytest
import torch
from support.training import bits, make, train
from torch.optim.swa_utils import AveragedModel

from weightslab.engine.errors import NotStorableError, StateMismatchError
from weightslab.engine.tensors.tree import join, split
from weightslab.engine.training.state import (
    apply_all,
    capture_tracked,
    is_data_position,
    order_of,
    plan_tracked_restore,
    require_trackable,
)


class Average:
    """An average of a user: plain tensors in a dict."""

    def __init__(self, model):
        self.decay = 0.9
        self.shadow = {key: value.clone() for key, value in model.state_dict().items()}

    def update(self, model):
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.shadow[key].mul_(self.decay).add_(value, alpha=1 - self.decay)

    def state_dict(self):
        return {"decay": self.decay, "shadow": self.shadow}

    def load_state_dict(self, state):
        self.decay, self.shadow = state["decay"], state["shadow"]


def through_a_file(tree):
    tensors, skeleton = split(tree)
    return join(skeleton, tensors)


def restore(items, tree):
    apply_all([plan_tracked_restore(name, item, tree[name]) for name, item in items.items()])


def everything(seed):
    model, optimizer = make(seed=seed)
    train(model, optimizer, steps=2)
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    own = Average(model)
    own.update(model)
    return {
        "averaged": averaged,
        "own": own,
        "second": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1),
        "order": random.Random(seed),
    }


def test_objects_of_all_kinds_come_back():
    source, live = everything(1), everything(2)
    tree = through_a_file(capture_tracked(source))
    restore(live, tree)
    for name in ("averaged", "own", "second", "scheduler"):
        assert bits(live[name].state_dict()) == bits(source[name].state_dict()), name
    assert live["order"].random() == source["order"].random()
    assert int(live["averaged"].n_averaged) == 1


def test_restored_average_does_not_share_memory_with_what_was_saved():
    source, live = everything(1), everything(2)
    tree = capture_tracked(source)
    restore(live, tree)
    before = bits(tree["own"]["state"])
    live["own"].update(live["averaged"].module)
    assert bits(tree["own"]["state"]) == before


def test_code_of_users_comes_first_and_generators_last():
    items = everything(1)
    assert sorted(items, key=lambda name: order_of(items[name])) == [
        "own", "scheduler", "averaged", "second", "order"
    ]  # fmt: skip


def test_samplers_and_loaders_are_positions_in_data():
    dataset = torch.utils.data.TensorDataset(torch.zeros(3))
    assert is_data_position(torch.utils.data.RandomSampler(dataset))
    assert is_data_position(torch.utils.data.DataLoader(dataset))
    assert not is_data_position(everything(1)["scheduler"])


@pytest.mark.parametrize("item", [3, object(), {"state_dict": 1}, torch.zeros(2), lambda: None])
def test_object_without_a_state_is_refused_by_name(item):
    with pytest.raises(TypeError, match=r"^thing is a .*, which has no state_dict"):
        require_trackable("thing", item)


def test_state_that_has_no_form_is_told_with_name_and_path():
    broken = Average(torch.nn.Linear(1, 1))
    broken.decay = {"fn": print}
    with pytest.raises(NotStorableError, match=r"own\.state\.decay\.fn is a builtins\.builtin_f"):
        split(capture_tracked({"own": broken}))
    broken.state_dict = lambda: 1 / 0
    with pytest.raises(NotStorableError, match=r"^own: state_dict\(\) of a .*Average failed: Zero"):
        capture_tracked({"own": broken})


@pytest.mark.parametrize(
    ("saved", "live"),
    [("averaged", "own"), ("own", "averaged"), ("scheduler", "order"), ("order", "second")],
)
def test_object_of_another_kind_is_refused_by_name(saved, live):
    tree = capture_tracked(everything(1))[saved]
    with pytest.raises(StateMismatchError, match=r"^thing: the checkpoint holds the state of"):
        plan_tracked_restore("thing", everything(1)[live], tree)


def test_average_of_another_model_is_refused_by_name_and_entry():
    tree = capture_tracked({"ema": AveragedModel(torch.nn.Linear(2, 2))})["ema"]
    with pytest.raises(StateMismatchError, match=r"^ema: ") as caught:
        plan_tracked_restore("ema", AveragedModel(torch.nn.Linear(2, 3)), tree)
    assert caught.value.shape_changes == {
        "ema/weight": "float32 [2, 2] -> float32 [3, 2]",
        "ema/bias": "float32 [2] -> float32 [3]",
    }


@pytest.mark.parametrize(
    "saved", [None, 3, {}, {"kind": "module"}, {"kind": "module", "tensors": 3}]
)
def test_state_of_the_wrong_form_is_refused(saved):
    with pytest.raises(StateMismatchError, match=r"^ema: "):
        plan_tracked_restore("ema", torch.nn.Linear(1, 1), saved)
