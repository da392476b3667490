"""Copying in place: bit for bit, seen by autograd, and in memory that is there already."""

import pytest
import torch
from support.training import bits, make, train
from torch import nn

from weightslab.engine.training import copying
from weightslab.engine.training.copying import copy_tensors
from weightslab.engine.training.state import (
    capture_model,
    capture_optimizer,
    plan_model_restore,
    plan_optimizer_restore,
)


@pytest.fixture(params=["one thread", "several threads"])
def threads(request, monkeypatch):
    if request.param == "several threads":
        monkeypatch.setattr(copying, "_PARALLEL_BYTES", 1)


VALUES = {
    "float32": torch.randn(7, 3),
    "bfloat16": torch.randn(5).to(torch.bfloat16),
    "bool": torch.tensor([True, False, True]),
    "complex64": torch.randn(3, dtype=torch.complex64),
    "0-d": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
    "transposed": torch.randn(4, 6).T,
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "odd stride": torch.randn(8).as_strided((1, 4), (77, 1)),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "subclass": nn.Parameter(torch.randn(3)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_every_kind_of_tensor_is_copied_bit_for_bit(threads, kind):
    source = VALUES[kind].detach()
    target = torch.zeros_like(source)
    copy_tensors([(target, source)])
    assert torch.equal(target, source)
    assert target.stride() == torch.zeros_like(source).stride()


def test_another_layout_or_dtype_is_converted(threads):
    source = torch.arange(6.0).reshape(2, 3)
    target, half = torch.zeros(3, 2).T, torch.zeros(2, 3, dtype=torch.float16)
    copy_tensors([(target, source), (half, source)])
    assert torch.equal(target, source)
    assert torch.equal(half, source.half())


def test_parameters_that_need_gradients_are_filled_and_autograd_notices(threads):
    weight = nn.Parameter(torch.ones(3))
    product = (weight * weight).sum()
    copy_tensors([(weight, torch.zeros(3))])
    assert weight.tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_tensors_that_share_memory_are_written_in_order(threads):
    memory = torch.zeros(1000)
    pairs = [(memory[:600], torch.ones(600)), (memory[400:], torch.full((600,), 2.0))]
    copy_tensors(pairs)
    assert memory[399].item() == 1
    assert set(memory[400:].tolist()) == {2.0}


# ---------------------------------------------------------------- models
def restore_into(live, source):
    state = capture_model(source)
    plan_model_restore(live, state.tensors, state.extra, aliases={}).apply()


def test_model_keeps_its_tensors_and_their_memory():
    live, source = make(seed=1)[0], make(seed=2)[0]
    before = {name: value.data_ptr() for name, value in live.state_dict().items()}
    restore_into(live, source)
    assert {name: value.data_ptr() for name, value in live.state_dict().items()} == before
    assert bits(dict(live.state_dict())) == bits(dict(source.state_dict()))


def test_model_whose_hook_makes_the_state_is_loaded_by_its_own_code():
    def halve(module, state, prefix, metadata):
        state[prefix + "weight"] = state[prefix + "weight"] / 2  # not the memory of the model

    live, source = nn.Linear(2, 2), nn.Linear(2, 2)
    for model in (live, source):
        model._register_state_dict_hook(halve)
    restore_into(live, source)
    assert torch.equal(live.weight, source.weight / 2)


def test_extra_state_is_given_back_beside_the_tensors():
    class Counted(nn.Linear):
        calls = 0

        def get_extra_state(self):
            return {"calls": self.calls}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    live, source = Counted(2, 2), Counted(2, 2)
    source.calls = 5
    restore_into(live, source)
    assert live.calls == 5
    assert torch.equal(live.weight, source.weight)


# ---------------------------------------------------------------- optimizers
def captured(seed=1):
    model, optimizer = make(seed=seed)
    train(model, optimizer, steps=2, seed=seed)
    return model, optimizer, capture_optimizer(optimizer)


def moments(optimizer):
    return [
        value.data_ptr()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]


def test_optimizer_takes_the_values_into_the_memory_it_has():
    live = captured(seed=1)[1]
    source, saved = captured(seed=2)[1:]
    before = moments(live)
    plan = plan_optimizer_restore(live, saved)
    untouched = bits(live.state_dict())
    assert untouched != bits(source.state_dict())  # a plan alone changes nothing
    plan.apply()
    assert moments(live) == before
    assert bits(live.state_dict()) == bits(source.state_dict())


def test_saved_state_is_not_shared_with_the_optimizer():
    live = make(seed=1)[1]
    saved = captured(seed=2)[2]
    before = bits(saved)
    plan_optimizer_restore(live, saved).apply()
    for state in live.state.values():
        state["exp_avg"].zero_()
    assert bits(saved) == before


def test_state_tensors_that_share_memory_get_memory_of_their_own():
    model, live, _ = captured(seed=1)
    shared = torch.zeros(10)
    weight, bias = list(model.parameters())[1], list(model.parameters())[2]
    live.state[weight]["exp_avg"], live.state[bias]["exp_avg"] = shared[:5], shared[5:]
    source, saved = captured(seed=2)[1:]
    plan_optimizer_restore(live, saved).apply()
    assert bits(live.state_dict()) == bits(source.state_dict())


def test_optimizer_with_code_of_its_own_gets_copies():
    class Keeping(torch.optim.AdamW):
        def load_state_dict(self, state):
            self.given = state
            super().load_state_dict(state)

    model = make(seed=1)[0]
    live = Keeping(model.parameters(), lr=0.01)
    train(model, live)
    before = moments(live)
    _, source, saved = captured(seed=2)
    saved["class"] = f"{Keeping.__module__}.{Keeping.__qualname__}"
    plan_optimizer_restore(live, saved).apply()
    assert not set(moments(live)) & set(before)
    assert bits(live.state_dict()["state"]) == bits(source.state_dict()["state"])
