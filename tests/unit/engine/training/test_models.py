"""State of models: no wrapper shows in it, all of it is checked before any of it is copied."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from weightslab.engine.errors import CheckpointError, NotStorableError, StateMismatchError
from weightslab.engine.training.state import capture_model, parameter_names, plan_model_restore

KEYS = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
KEYS += ["1.num_batches_tracked", "2.weight", "2.bias"]


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_inside(model):
    model[0] = compiled(model[0])
    return model


def checkpointed(model):
    model[2] = checkpoint_wrapper(model[2])
    return model


def compiled_in_checkpointed(model):
    model[2] = checkpoint_wrapper(compiled(model[2]))
    return checkpoint_wrapper(model)


def averaged_compiled(model):
    return AveragedModel(compiled(model))


def parallel(model):
    return nn.DataParallel(model)


WRAPS = [compiled, compiled_inside, checkpointed, compiled_in_checkpointed, averaged_compiled]
WRAPS += [parallel]


def copied(state):
    """A captured state as it would come from a file."""
    return {name: tensor.clone() for name, tensor in state.tensors.items()}


def plan(model, tensors, extra=None, *, aliases=None, **more):
    return plan_model_restore(model, tensors, extra or {}, aliases=aliases or {}, **more)


def values(model):
    return {name: tensor.clone() for name, tensor in capture_model(model).tensors.items()}


def is_same(one, other):
    return list(one) == list(other) and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("wrap", WRAPS)
def test_wrappers_do_not_show(wrap):
    plain, wrapped = build(), wrap(build())

    assert list(capture_model(wrapped).tensors) == KEYS
    assert is_same(values(wrapped), values(plain))


@pytest.mark.parametrize("wrap", WRAPS)
def test_state_goes_from_plain_to_wrapped_and_back(wrap):
    source, wrapped, plain = build(1), wrap(build(2)), build(3)

    plan(wrapped, copied(capture_model(source))).apply()
    plan(plain, copied(capture_model(wrapped))).apply()

    assert is_same(values(plain), values(source))


def test_submodule_of_the_user_named_like_a_wrapper_keeps_its_name():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2, bias=False)
            self._orig_mod = nn.Linear(2, 2, bias=False)

    expected = ["module.weight", "_orig_mod.weight"]
    assert list(capture_model(Outer()).tensors) == expected
    assert list(capture_model(compiled(Outer())).tensors) == expected
    assert list(capture_model(AveragedModel(Outer())).tensors) == expected


def test_tensors_are_the_live_ones():
    model = build()
    state = capture_model(model)

    assert state.tensors["0.weight"].data_ptr() == model[0].weight.data_ptr()
    assert not state.tensors["0.weight"].requires_grad


def test_number_of_averages_is_state_of_the_wrapper():
    model, other = AveragedModel(build(1)), nn.DataParallel(AveragedModel(build(2)))
    model.update_parameters(build(3))
    state = capture_model(model)

    assert {n: t.item() for n, t in state.wrapper_state.items()} == {"n_averaged": 1}
    assert "n_averaged" not in state.tensors
    plan(other, copied(state), wrapper_state=copy.deepcopy(state.wrapper_state)).apply()
    assert other.module.n_averaged.item() == 1
    plan(build(), copied(state), wrapper_state=state.wrapper_state).apply()


def test_own_buffer_of_the_model_is_not_taken_for_the_wrappers():
    model = build()
    model.register_buffer("n_averaged", torch.tensor(5))
    state = capture_model(AveragedModel(model))

    assert state.tensors["n_averaged"].item() == 5
    assert state.wrapper_state["n_averaged"].item() == 0


def test_wrapper_keeps_its_own_state_where_the_checkpoint_has_none():
    model = AveragedModel(build())
    model.n_averaged.fill_(7)
    plan(model, copied(capture_model(build(1)))).apply()

    assert model.n_averaged.item() == 7


def test_names_of_parameters_have_no_wrappers():
    model = compiled_in_checkpointed(build())

    assert list(parameter_names([model]).values()) == [n for n, _ in build().named_parameters()]


def test_counters_of_batchnorm_and_frozen_parameters_come_back():
    source, live = build(1), build(2)
    source(torch.randn(5, 3))
    live[0].weight.requires_grad_(False)

    plan(live, copied(capture_model(source))).apply()

    assert live[1].num_batches_tracked.item() == 1
    assert is_same(values(live), values(source))
    assert [p.requires_grad for p in live.parameters()] == [False] + [True] * 5


def test_memory_of_the_live_tensors_stays():
    live = build(2)
    before = [p.data_ptr() for p in live.parameters()]
    weight = live[0].weight

    plan(live, copied(capture_model(build(1)))).apply()

    assert [p.data_ptr() for p in live.parameters()] == before
    assert live[0].weight is weight


def test_buffers_that_are_not_persistent_stay():
    live = build()
    live.register_buffer("mask", torch.ones(2), persistent=False)

    plan(live, copied(capture_model(build(1)))).apply()

    assert live.mask.tolist() == [1.0, 1.0]


# ---------------------------------------------------------------- what does not fit
def test_mismatch_names_everything_and_changes_nothing():
    live = build(2)
    before = values(live)
    saved = copied(capture_model(build(1)))
    saved["3.weight"] = saved.pop("0.bias")
    saved["2.weight"] = torch.zeros(5, 4)
    saved["2.bias"] = torch.zeros(2, dtype=torch.float64)

    with pytest.raises(StateMismatchError) as caught:
        plan(live, saved)

    assert caught.value.missing == ("0.bias",)
    assert caught.value.unexpected == ("3.weight",)
    assert caught.value.shape_changes == {
        "2.weight": "float32 [5, 4] -> float32 [2, 4]",
        "2.bias": "float64 [2] -> float32 [2]",
    }
    assert str(caught.value).startswith(
        "the checkpoint does not fit the model: the checkpoint lacks 0.bias; the model lacks "
        "3.weight; other shapes: 2.weight (float32 [5, 4] -> float32 [2, 4]), "
    )
    assert is_same(values(live), before)


def test_message_lists_a_few_and_counts_the_rest():
    with pytest.raises(StateMismatchError, match=r"0\.weight, 0\.bias, .* and 5 more"):
        plan(build(), {})


def test_entries_of_one_side_are_left_alone_when_asked():
    live = build(2)
    bias = live[0].bias.clone()
    saved = copied(capture_model(build(1)))
    saved["more"] = saved.pop("0.bias")

    found = plan(live, saved, strict=False)
    found.apply()

    assert (found.missing, found.unexpected) == (("0.bias",), ("more",))
    assert torch.equal(live[0].bias, bias)
    assert torch.equal(live[0].weight, saved["0.weight"])


def test_entry_that_does_not_fit_keeps_its_value_when_asked():
    live = build(2)
    weight = live[0].weight.clone()
    saved = copied(capture_model(build(1))) | {"0.weight": torch.zeros(1)}

    found = plan(live, saved, strict=False)
    found.apply()

    assert found.changes == {"0.weight": "float32 [1] -> float32 [4, 3]"}
    assert torch.equal(live[0].weight, weight)
    assert torch.equal(live[0].bias, saved["0.bias"])
    assert "0.weight" not in found.loaded


class Tied(nn.Module):
    def __init__(self, *, tie=True):
        super().__init__()
        self.one = nn.Linear(2, 2, bias=False)
        self.two = nn.Linear(2, 2, bias=False)
        if tie:
            self.two.weight = self.one.weight


@pytest.mark.parametrize("tie", [True, False])
def test_stored_once_fills_both_names(tie):
    live = Tied(tie=tie)
    weight = torch.arange(4.0).reshape(2, 2)

    plan(live, {"one.weight": weight}, aliases={"two.weight": "one.weight"}).apply()

    assert live.one.weight.tolist() == live.two.weight.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert (live.one.weight is live.two.weight) is tie


def test_a_tied_tensor_may_be_saved_under_one_of_its_names():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = model["a"].weight
    saved = {"a.weight": torch.ones(2, 2), "a.bias": torch.zeros(2)}

    plan = plan_model_restore(model, saved, {}, aliases={})
    plan.apply()

    assert set(plan.loaded) == {"a.weight", "a.bias", "b.weight"}
    assert model["b"].weight is model["a"].weight
    assert model["b"].weight.tolist() == [[1, 1], [1, 1]]


def test_two_tensors_do_not_go_into_a_tied_one():
    live = Tied()
    before = live.one.weight.clone()
    nan = torch.full((2, 2), float("nan"))

    plan(live, {"one.weight": nan, "two.weight": nan.clone()})
    with pytest.raises(StateMismatchError, match=r"one\.weight and two\.weight are one tensor"):
        plan(live, {"one.weight": nan, "two.weight": torch.zeros(2, 2)})
    assert torch.equal(live.one.weight, before)


def expanded():
    model = nn.Linear(2, 2)
    model.register_buffer("grid", torch.zeros(1).expand(3))
    return model


def in_inference():
    with torch.inference_mode():
        return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Linear(2, 2, device="meta"), r"weight is on the meta device"),
        (lambda: nn.LazyLinear(2), r"weight is not initialised yet; run one forward first"),
        (expanded, r"grid is an expanded tensor"),
        (in_inference, r"weight was made in inference mode"),
    ],
    ids=["meta", "lazy", "expanded", "inference"],
)
def test_model_that_cannot_be_copied_into_is_refused(make, text):
    with pytest.raises(StateMismatchError, match=text):
        plan(make(), {})


def test_model_under_fsdp_is_refused_without_waiting_for_anybody(tmp_path):
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        from torch.distributed.fsdp import FullyShardedDataParallel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks for a GPU
            model = nn.Sequential(FullyShardedDataParallel(build(), device_id="cpu"))
        with pytest.raises(NotStorableError, match=r"sharded.*not supported yet"):
            capture_model(model)
        with pytest.raises(StateMismatchError, match=r"sharded.*not supported yet"):
            plan(model, {})
    finally:
        dist.destroy_process_group()


# ---------------------------------------------------------------- code of the user
class Counting(nn.Module):
    """Keeps what it is given as extra state."""

    def __init__(self, state):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


def test_extra_state_goes_through_the_module():
    live = nn.Sequential(Counting({"n": 0}))
    state = capture_model(compiled(nn.Sequential(Counting({"n": 3}))))

    assert state.extra == {"0._extra_state": {"n": 3}}
    plan(live, copied(state), state.extra).apply()
    assert live[0].state == {"n": 3}
    with pytest.raises(StateMismatchError) as caught:
        plan(live, copied(state))
    assert caught.value.missing == ("0._extra_state",)


def test_extra_tensor_that_is_kept_is_a_copy():
    live = Counting(torch.zeros(1))
    stored = torch.ones(3)
    plan(live, {"weight": torch.zeros(1), "_extra_state": stored}).apply()

    assert live.state.tolist() == [1.0, 1.0, 1.0]
    assert live.state.data_ptr() != stored.data_ptr()


class Keeping(nn.Linear):
    """Puts the tensors that it is given in the place of its own."""

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        self.weight = nn.Parameter(state_dict[f"{prefix}weight"])
        self.bias = nn.Parameter(state_dict[f"{prefix}bias"])


def test_own_way_of_loading_is_honoured_and_gets_copies():
    live = nn.Sequential(Keeping(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    saved = copied(capture_model(build(1)))
    plan(live, saved).apply()

    assert torch.equal(live[0].weight, saved["0.weight"])
    assert live[0].weight.data_ptr() != saved["0.weight"].data_ptr()


def test_own_code_that_fails_says_that_the_model_is_in_between():
    class Failing(Counting):
        def set_extra_state(self, state):
            raise RuntimeError("no such counter")

    found = plan(Failing(0), {"weight": torch.ones(1)}, {"_extra_state": 1})

    with pytest.raises(CheckpointError, match=r"no such counter; it may hold a part") as caught:
        found.apply()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_keys_that_a_hook_renames_are_taken_as_they_are():
    model = build()
    model.register_state_dict_post_hook(
        lambda module, state, prefix, meta: state.update({"old.name": state.pop("0.bias")})
    )

    assert "old.name" in capture_model(model).tensors
